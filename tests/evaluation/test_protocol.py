"""What every evaluator gets from its base class: an encoder by the context, and the entries of every meta."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hypvl.data.transforms import Squeeze
from hypvl.datasets.images import Images
from hypvl.datasets.protocol import ImageSource
from hypvl.embedding.encode import CachedEncoder, Encoding
from hypvl.embedding.identity import model_identity
from hypvl.embedding.protocol import EvaluableModel
from hypvl.embedding.store import EmbeddingStore
from hypvl.evaluation.protocol import EvaluationContext, EvaluationResult, Evaluator
from tests.evaluation.fakes import RED, FakeModel, FakeTokenizer, broken, image
from tests.evaluation.modules import FakeModule

LENIENT = Encoding(batch_size=2, num_workers=0, max_bad_fraction=0.9)


class OneToken:
    def __call__(self, texts: Sequence[str]) -> Tensor:
        return torch.ones(len(texts), 1, dtype=torch.int64)


@dataclass
class Brightness(Evaluator):
    """Mean of the embeddings of images and of one text."""

    images: ImageSource
    _: KW_ONLY
    own_meta: tuple[str, ...] = ()

    main_metric = "brightness"

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        texts = encoder.encode_texts(["red and blue"])
        images = encoder.encode_images(self.images, transform=Squeeze(model.image_size))
        meta = {"batch_size": encoder.encoding.batch_size, **dict.fromkeys(self.own_meta, "own")}
        return EvaluationResult(
            {"brightness": images.embeddings.mean().item()}, {"text": texts.tolist()}, meta
        )


def files(folder: Path) -> Images:
    return Images.from_files([image(folder / "a.png", RED), broken(folder / "b.png")])


def test_meta_of_every_evaluator(tmp_path: Path) -> None:
    result = Brightness(files(tmp_path), encoding=LENIENT, tokenizer=FakeTokenizer())(FakeModel())
    assert result.meta["main_metric"] == "brightness" and result.meta["unreadable"] == 1
    assert len(result.meta["unreadable_first"]) == 1 and "b.png" in result.meta["unreadable_first"][0]


def test_meta_of_the_evaluator_itself_comes_first(tmp_path: Path) -> None:
    evaluator = Brightness(
        files(tmp_path), encoding=LENIENT, tokenizer=FakeTokenizer(), own_meta=("unreadable",)
    )
    assert evaluator(FakeModel()).meta["unreadable"] == "own"


def test_arguments_of_an_evaluator_come_before_those_of_the_context(tmp_path: Path) -> None:
    images = files(tmp_path)
    context = EvaluationContext(encoding=LENIENT, tokenizer=OneToken())
    by_context = Brightness(images)(FakeModel(), context)
    assert by_context.meta["batch_size"] == 2 and by_context.items["text"] == [[1.0, 0.0, 0.0]]
    own = Encoding(batch_size=1, num_workers=0, max_bad_fraction=0.9)
    by_itself = Brightness(images, encoding=own, tokenizer=FakeTokenizer())(FakeModel(), context)
    assert by_itself.meta["batch_size"] == 1 and by_itself.items["text"] == [[1.0, 0.0, 1.0]]


def test_the_store_of_the_context_is_read_and_written(tmp_path: Path) -> None:
    model = FakeModule()
    evaluator = Brightness(files(tmp_path), encoding=LENIENT, tokenizer=FakeTokenizer())
    store = EmbeddingStore(tmp_path / "stored", model=model_identity(model), mode="write")
    plain = evaluator(model)
    assert evaluator(model, EvaluationContext(store=store)) == plain
    assert (store.reused, store.encoded) == (0, 2)  # an image and a text
    assert evaluator(model, EvaluationContext(store=store)) == plain
    assert (store.reused, store.encoded) == (2, 2)


def test_a_mean_over_items_or_groups_comes_with_samples_and_strata() -> None:
    result = EvaluationResult({})
    result.add_mean("share", [100.0, 0.0, 0.0, 100.0], chance=25.0)
    result.add_mean("rank", [1.0], [2.0, 4.0])
    assert result.metrics == {"share": 50.0, "share_chance": 25.0, "rank": 2.0}
    assert result.samples == {"share": [100.0, 0.0, 0.0, 100.0], "rank": [1.0, 2.0, 4.0]}
    assert result.strata == {"rank": [0, 1, 1]}
    for groups in ((), ([],), ([1.0], [])):
        with pytest.raises(ValueError, match=r"share: got .* items; expected at least one per group"):
            result.add_mean("share", *groups)
