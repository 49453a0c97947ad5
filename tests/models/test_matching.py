"""Matching heads of tiny BLIP and BLIP-2 models against the forward pass of transformers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.encoders.image_base import ImageEncoder
from hypvl.evaluation.retrieval import ZeroShotRetrieval
from hypvl.models.matching import Blip2Matching, BlipMatching, MatchingHead
from tests.evaluation.fakes import BLUE, GREEN, RED, FakeModel, FakeTokenizer
from tests.evaluation.miniatures import retrieval, sugarcrepe
from tests.evaluation.smoke import ROOT, inside
from tests.evaluation.test_retrieval import PLAIN, scenes
from tests.models.foreign import tiny

VISION = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16,
    "patch_size": 8,
}  # fmt: skip
TEXT = {
    "vocab_size": 40, "hidden_size": 24, "encoder_hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 2, "max_position_embeddings": 20,
}  # fmt: skip
TEXTS = ["red", "a green thing in the blue", "blue and more", "yellow"]
END = 39


class WordTokenizer:
    """Ids by length of words: (B, L), filled with 0, which is also the first id of every text."""

    pad_token = 0

    def __call__(self, texts: Sequence[str]) -> Tensor:
        rows = [
            torch.tensor([0, *(1 + sum(map(ord, word)) % 38 for word in text.split()), END]) for text in texts
        ]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0)


class Pixels(ImageEncoder):
    """Only says how images are normalised."""

    def __init__(self) -> None:
        super().__init__(16, pixel_mean=[0.4, 0.5, 0.6], pixel_std=[0.2, 0.3, 0.25], fixed_size=True)

    def encode(self, pixels: Tensor) -> Tensor:
        raise AssertionError("is not asked")


def random_(model: Any) -> Any:
    """Weights larger than at the start, so that every part matters."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def blip() -> Any:
    from transformers import BlipConfig, BlipForImageTextRetrieval

    torch.manual_seed(0)
    text = {**TEXT, "bos_token_id": 0, "sep_token_id": END, "pad_token_id": 0}
    return random_(
        BlipForImageTextRetrieval(
            BlipConfig(text_config=text, vision_config=VISION, image_text_hidden_size=12)
        )
    )


def blip2() -> Any:
    from transformers import Blip2Config, Blip2ForImageTextRetrieval

    torch.manual_seed(0)
    qformer = {**TEXT, "use_qformer_text_input": True, "pad_token_id": 0}
    config = Blip2Config(
        vision_config=VISION, qformer_config=qformer, num_query_tokens=4, image_text_hidden_size=12
    )
    return random_(Blip2ForImageTextRetrieval(config))


def heads(kind: str, **settings: Any) -> MatchingHead:
    made: type[MatchingHead] = BlipMatching if kind == "blip" else Blip2Matching
    model = blip() if kind == "blip" else blip2()
    return made(model, visual=Pixels(), tokenizer=WordTokenizer(), fill_id=7, name=f"tiny {kind}", **settings)


@torch.no_grad()
def library(head: MatchingHead, pixels: Tensor, ids: Tensor) -> Tensor:
    """The logit of transformers' own forward for one image, (1, 3, S, S), and one text without padding, (1, L)."""
    mask = torch.ones_like(ids)
    if isinstance(head, BlipMatching):
        score = head.model(
            pixel_values=pixels, input_ids=ids, attention_mask=mask, use_itm_head=True
        ).itm_score
    else:
        score = head.model(
            pixel_values=pixels, input_ids=ids, attention_mask=mask, use_image_text_matching_head=True
        ).logits_per_image
    assert score.shape == (1, 2)
    return score[0, 1]


@pytest.mark.parametrize("kind", ["blip", "blip-2"])
def test_scores_are_those_of_transformers(kind: str) -> None:
    head = heads(kind)
    images = torch.randint(
        0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    tokens = WordTokenizer()
    with torch.no_grad():
        states = head.image_states(images)
        scores = head.score(states[[0, 1, 0, 1]], TEXTS)  # texts of three lengths in one batch
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ([0.4, 0.5, 0.6], [0.2, 0.3, 0.25]))
    pixels = (images / 255 - mean) / std
    wanted = torch.stack([library(head, pixels[[i % 2]], tokens([text])) for i, text in enumerate(TEXTS)])
    assert wanted.std() > 1e-2
    torch.testing.assert_close(scores, wanted, rtol=0, atol=1e-5)


def test_the_first_id_of_blip() -> None:
    head, plain = heads("blip", first_id=3), heads("blip")
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        states = head.image_states(images)
        given = plain.tokenizer(TEXTS[:2])
        given[:, 0] = 3
        plain.tokenizer = lambda texts: given  # type: ignore[assignment]
        torch.testing.assert_close(
            head.score(states, TEXTS[:2]), plain.score(states, TEXTS[:2]), rtol=0, atol=1e-6
        )
        assert (head.score(states, TEXTS[:2]) - heads("blip").score(states, TEXTS[:2])).abs().min() > 1e-4


@pytest.mark.parametrize("kind", ["blip", "blip-2"])
def test_retrieval_is_reranked_by_the_head(kind: str, tmp_path: Path) -> None:
    lines: Any = [("b.png", BLUE, ["blue", "green"]), ("g.png", GREEN, ["a green"]), ("r.png", RED, ["red"])]
    data = scenes(tmp_path, lines)
    head = heads(kind)
    head.train(True)
    result = ZeroShotRetrieval(
        data, encoding=PLAIN, tokenizer=FakeTokenizer(), ks=(1, 2, 3), rerank=3, pair_scorer=head
    )(FakeModel())
    assert result.meta["rerank"] == {"first": 3, "scorer": f"tiny {kind}", "score": "pair"}
    assert head.training
    head.train(False)
    pixels = torch.stack([torch.tensor(color, dtype=torch.uint8) for color in (BLUE, GREEN, RED)])
    with torch.no_grad():
        states = head.image_states(pixels[:, :, None, None].expand(3, 3, 16, 16))
        scores = torch.stack([head.score(states, [text] * 3) for text in data.captions])  # (T, I)
    best = scores.argmax(dim=1)
    assert result.items["text_top1"] == [data.keys[i] for i in best.tolist()]
    own = torch.tensor(data.caption_image)
    ranks = 1 + (scores > scores.gather(1, own[:, None])).sum(dim=1)
    assert result.items["text_rank"] == ranks.tolist()
    assert json.dumps(result.items)


@pytest.mark.parametrize(
    ("write", "head"), [(tiny.blip, "BLIP's matching head"), (tiny.blip2, "BLIP-2's matching head")]
)
@torch.no_grad()
def test_a_suite_with_the_matching_head_of_a_folder(write: Any, head: str, tmp_path: Path) -> None:
    """`--model hf:FOLDER`, re-ranked, and choices scored together: one command each."""
    from hypvl.cli.evaluate import main
    from hypvl.models.foreign import load_foreign

    write(tmp_path / "blip")
    retrieval.make(tmp_path / "datasets")
    sugarcrepe.make(tmp_path / "datasets")
    model = load_foreign(f"hf:{tmp_path / 'blip'}").model
    assert not any("itm_head" in name for name in model.state_dict())  # no part of what makes embeddings
    base = ["--model", f"hf:{tmp_path / 'blip'}", "--device", "cpu", "--num-workers", "0", "--no-download"]
    results = {}
    for suite, more in (
        ("zero_shot_retrieval", ["--only", "flickr30k", "rerank=2"]),
        ("sugarcrepe", ["scored_by=pair_scorer"]),
    ):
        with inside(tmp_path):
            config = str(ROOT / "configs" / f"eval_{suite}.py")
            code = main(["--config", config, *base, "--output-dir", str(tmp_path / suite), *more])
        assert code == 0
        results |= json.loads((tmp_path / suite / "results.json").read_text())["results"]
    assert results["flickr30k"]["meta"]["rerank"] == {"first": 2, "scorer": head, "score": "pair"}
    assert results["sugarcrepe"]["meta"]["pair_scorer"] == head


def test_the_head_of_another_model_reranks(tmp_path: Path) -> None:
    from hypvl.cli.evaluate import main
    from hypvl.errors import ConfigError
    from hypvl.models.foreign import matching_head

    tiny.blip(tmp_path / "blip")
    tiny.clip(tmp_path / "clip")
    retrieval.make(tmp_path / "datasets")
    config = str(ROOT / "configs" / "eval_zero_shot_retrieval.py")
    node = f'pair_scorer={{_target_:hypvl.models.foreign.matching_head,name:"hf:{tmp_path / "blip"}",device:cpu}}'
    with inside(tmp_path):
        code = main(
            ["--config", config, "--model", f"hf:{tmp_path / 'clip'}", "--device", "cpu", "--num-workers", "0",
             "--no-download", "--output-dir", str(tmp_path / "out"), "--only", "flickr30k", "rerank=3", node]
        )  # fmt: skip
    results = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert code == 0
    assert results["flickr30k"]["meta"]["rerank"]["scorer"] == f"BLIP's matching head, hf:{tmp_path / 'blip'}"
    with pytest.raises(ConfigError, match=r"clip: has no matching head; expected BLIP, BLIP-2 or X-VLM"):
        matching_head(f"hf:{tmp_path / 'clip'}", device="cpu")
