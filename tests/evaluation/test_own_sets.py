"""Data sets of one's own: what they need is said in one sentence, and nothing else is needed."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from hypvl.embedding.encode import Encoding
from hypvl.errors import DataError
from hypvl.evaluation.clip_score import CaptionScores
from hypvl.evaluation.clip_score_correlation import CaptionCorrelation
from hypvl.evaluation.foil_accuracy import CaptionChoice
from hypvl.evaluation.geometry_audit import GeometryAudit
from hypvl.evaluation.himo import HiMo
from hypvl.evaluation.modality_gap import ModalityGap
from hypvl.evaluation.pep import EntailmentPairs
from hypvl.evaluation.probes.clustering import KMeansClustering
from hypvl.evaluation.probes.fine_tune import FineTune
from hypvl.evaluation.probes.knn import KNNClassification
from hypvl.evaluation.probes.linear_probe import LinearProbe
from hypvl.evaluation.radial_order import RadialOrder
from hypvl.evaluation.radii import EmbeddingRadii
from hypvl.evaluation.retrieval import ZeroShotRetrieval
from hypvl.evaluation.winoground_score import CaptionGroups
from hypvl.evaluation.zero_shot import ZeroShotClassification
from tests.evaluation.fakes import FakeModel, FakeTokenizer

PLAIN = Encoding(num_workers=0)
SHADES = {"red": (255, 0, 0), "blue": (0, 0, 255)}


class Own:
    """A classification set of a class that hypvl does not have, with what docs/extending/add_a_dataset.md lists."""

    classes = ("red", "blue")
    prompts = None
    keys = ("a", "b", "c")
    labels = (0, 1, 1)

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        shade = SHADES[self.classes[self.labels[index]]]
        return torch.tensor(shade, dtype=torch.uint8)[:, None, None].expand(3, 9, 7), self.labels[index]


class Unlabelled:
    """One that an image folder of torchvision might become."""

    classes = ("red", "blue")

    def __len__(self) -> int:
        return 3


CLASSIFICATION: dict[str, Callable[[Any], object]] = {
    "zero_shot": ZeroShotClassification,
    "knn": lambda data: KNNClassification(Own(), data),
    "knn, validation": lambda data: KNNClassification(Own(), Own(), validation=data),
    "linear_probe": lambda data: LinearProbe(data, Own()),
    "fine_tune": lambda data: FineTune(Own(), data),
    "clustering": KMeansClustering,
}
RETRIEVAL: dict[str, Callable[[Any], object]] = {
    "retrieval": ZeroShotRetrieval, "radii": EmbeddingRadii, "himo": HiMo, "gap": ModalityGap,
    "pep": EntailmentPairs, "order": RadialOrder, "audit": GeometryAudit,
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_what_a_classification_set_lacks_is_listed(name: str) -> None:
    with pytest.raises(
        DataError,
        match=r"a Unlabelled has no prompts, keys, labels, __getitem__; a ClassificationSet has classes, prompts, "
        r"keys, labels, __len__, __getitem__ \(see hypvl.datasets.protocol, and hypvl docs add_a_dataset for",
    ):
        CLASSIFICATION[name](Unlabelled())
    CLASSIFICATION[name](Own())


@pytest.mark.parametrize("name", RETRIEVAL)
def test_what_a_retrieval_set_lacks_is_listed(name: str) -> None:
    with pytest.raises(
        DataError, match="a SimpleNamespace has no caption_image, keys; a RetrievalSet has images, cap"
    ):
        RETRIEVAL[name](SimpleNamespace(images=[], captions=["x"]))
    mine = {"images": [None] * 3, "captions": ["a", "b"], "caption_image": [0, 2], "keys": ["x", "y", "z"]}
    RETRIEVAL[name](SimpleNamespace(**mine))
    for part, value, message in (
        ("keys", ["x"], "has 1 keys for 3 images"),
        ("caption_image", [0], "has 1 caption_image for 2 captions"),
        ("caption_image", [0, 3], r"has 3 in caption_image; expected positions 0 … 2"),
    ):
        with pytest.raises(DataError, match=f"dataset: {message}"):
            RETRIEVAL[name](SimpleNamespace(**{**mine, part: value}))


@pytest.mark.parametrize(
    ("evaluator", "members"),
    [
        (CaptionChoice, "images, choices, keys, means, meta"),
        (CaptionGroups, "images, groups, meta"),
        (CaptionScores, "images, keys, image, captions, references, ratings, notes"),
        (CaptionCorrelation, "images, keys, image, captions, references, ratings, notes"),
    ],
)
def test_what_other_sets_lack_is_listed(evaluator: Callable[[Any], object], members: str) -> None:
    with pytest.raises(DataError, match=f"a object has no {members}; a \\w+ has {members}"):
        evaluator(object())


def test_an_own_set_is_measured() -> None:
    result = ZeroShotClassification(Own(), ["{}"], encoding=PLAIN, tokenizer=FakeTokenizer())(FakeModel())
    assert result.metrics["top1_accuracy"] == 100.0 and result.items["key"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("labels", (0,), "has 1 labels for 3 images; expected one each"),
        ("keys", ("a",) * 4, "has 4 keys for 3 images"),
    ],
)
def test_parts_that_do_not_fit_together(part: str, value: object, message: str) -> None:
    with pytest.raises(DataError, match=f"dataset: {message}"):
        ZeroShotClassification(type("Mine", (Own,), {part: value})())


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (Image.new("RGB", (9, 7)), "gives a Image"),
        (torch.zeros(3, 9, 7), r"gives torch.float32 \(3, 9, 7\)"),
        (torch.zeros(9, 7, 3, dtype=torch.uint8), r"gives torch.uint8 \(9, 7, 3\)"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_images_of_another_kind_are_named(image: object, told: str, workers: int) -> None:
    class Mine(Own):
        def __getitem__(self, index: int) -> tuple[Any, int]:
            return image, 0

    evaluator = ZeroShotClassification(
        Mine(), ["{}"], encoding=Encoding(num_workers=workers), tokenizer=FakeTokenizer()
    )
    with pytest.raises(DataError, match=rf"the data set {told}; expected a uint8 tensor \(3, h, w\)"):
        evaluator(FakeModel())
