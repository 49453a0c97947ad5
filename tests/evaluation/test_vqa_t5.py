"""A tiny T5 with random weights in place of a trained one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hypvl.datasets.text.question_templates import QuestionTemplate
from hypvl.datasets.vqa import vqa_v2
from hypvl.errors import DataError, UserError
from hypvl.evaluation.vqa import ZeroShotVQA
from hypvl.evaluation.vqa_t5 import DEMONSTRATIONS, T5Templates, written_template
from tests.evaluation.fakes import FakeModel, FakeTokenizer
from tests.evaluation.miniatures import vqa

TEXT = "<pad> </s> <unk> the ball is red green blue big of a [MASK] what color question: statement: 1 2"
WORDS = TEXT.split()
CPU = torch.device("cpu")


def save_tokenizer(folder: Path, *, gaps: bool = True) -> int:
    from transformers import PreTrainedTokenizerFast

    file = folder / "words.json"
    words = {word: i for i, word in enumerate(WORDS)}
    content = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
    }
    file.write_text(json.dumps(content))
    more = ["<extra_id_0>", "<extra_id_1>"] if gaps else []
    fast = PreTrainedTokenizerFast(
        tokenizer_file=str(file), pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=more,
    )  # fmt: skip
    fast.save_pretrained(str(folder))
    return len(fast)


def save_t5(folder: Path) -> Path:
    """The model with its tokenizer in a folder that is there."""
    import transformers

    size = save_tokenizer(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.T5Config(
            vocab_size=size, d_model=16, d_kv=4, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0
        )
        transformers.T5ForConditionalGeneration(config).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    return save_t5(tmp_path_factory.mktemp("t5"))


def test_log_probabilities_are_those_of_the_library(folder: Path) -> None:
    import transformers

    t5 = T5Templates(str(folder), device=CPU, batch_size=1)
    template, answers = QuestionTemplate("the ball is [MASK]"), ["red", "green", "big red ball", "blue"] * 3
    found = t5.log_probabilities(template, answers)
    model: Any = transformers.T5ForConditionalGeneration.from_pretrained(str(folder)).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
    for answer, value in zip(answers[:4], found[:4].tolist(), strict=True):
        given = tokenizer("the ball is <extra_id_0>", return_tensors="pt")
        labels = tokenizer(f"<extra_id_0> {answer} <extra_id_1>", return_tensors="pt")["input_ids"]
        rest = labels.clone()
        rest[:, 0] = -100  # the library's mean over what is not ignored
        steps = torch.cat([torch.zeros(1, 1, dtype=torch.int64), labels[:, :-1]], dim=1)
        with torch.no_grad():
            logits = model(**given, decoder_input_ids=steps).logits
        loss = torch.nn.functional.cross_entropy(logits[0], rest[0], reduction="sum")
        assert value == pytest.approx(-loss.item(), abs=1e-4)
    assert found[4:8].tolist() == pytest.approx(found[:4].tolist(), abs=1e-5)  # in another block of answers
    best = t5.likely(template, answers[:4], k=2)
    assert best == [answers[i] for i in found[:4].argsort(descending=True, stable=True)[:2].tolist()]


def test_a_statement_without_a_single_gap_is_written_by_the_rules(folder: Path) -> None:
    t5 = T5Templates(str(folder), device=CPU, batch_size=2)
    templates, lost = t5.templates(["What color is the ball?", "Is it red?", "What is this?"])
    assert templates[1].yes_no and 0 <= lost <= 2
    assert all(template.yes_no or template.text.count("[MASK]") == 1 for template in templates)


def test_what_t5_writes_is_taken_when_it_has_one_gap(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    t5 = T5Templates(str(folder), device=CPU)
    texts = [
        "<pad> <extra_id_0> the color of the ball is [MASK] <extra_id_1> red",
        "<pad> <extra_id_0> red red",
    ]
    rows = [t5._tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    made = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    monkeypatch.setattr(t5._model, "generate", lambda **settings: made)
    templates, lost = t5.templates(["What color is the ball?", "What is this?"])
    assert templates[0].text == "the color of the ball is [MASK]"
    assert (templates[1].text, lost) == ("this is [MASK]", 1)


def test_written_templates() -> None:
    assert written_template(" the  ball is [MASK]. ") == "the ball is [MASK]"
    for text in ("", "[MASK]", "the ball", "[MASK] is [MASK]"):
        assert written_template(text) is None
    assert all(written_template(said) == said for _, said in DEMONSTRATIONS)


def test_the_suite_with_t5(folder: Path, tmp_path: Path) -> None:
    vqa.make(tmp_path)
    data = vqa_v2(tmp_path / "vqa", images=tmp_path / "coco" / "val2014")
    result = ZeroShotVQA(data, t5=str(folder), tokenizer=FakeTokenizer())(FakeModel())
    assert result.items["answer"][:2] == ["red", "green"]  # T5 retains all five, the model decides
    assert result.meta["templates"] == "t5" and result.meta["templates_by_rules_instead"] >= 0


def test_what_is_no_t5(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        T5Templates(str(tmp_path / "nothing"), device=CPU)
    save_tokenizer(tmp_path)
    with pytest.raises(UserError, match=r"t5: .* cannot be loaded"):
        T5Templates(str(tmp_path), device=CPU)
    for file in ("config.json", "model.safetensors", "generation_config.json"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    save_tokenizer(tmp_path, gaps=False)
    with pytest.raises(UserError, match="has no <extra_id_0>"):
        T5Templates(str(tmp_path), device=CPU)
