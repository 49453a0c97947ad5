"""Scores of captions of colours, by hand."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hypvl.datasets.candidate_captions import JudgedCaptions, captions_of
from hypvl.embedding.encode import CachedEncoder, Encoding
from hypvl.errors import DataError
from hypvl.evaluation.clip_score import CaptionScores, score_captions
from hypvl.evaluation.protocol import Evaluator
from hypvl.geometry.euclidean import Euclidean
from hypvl.geometry.lorentz import Lorentz
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import BLUE, GREEN, RED, FakeModel, FakeTokenizer, broken, image as pil_image

PLAIN = Encoding(batch_size=4, num_workers=0, max_bad_fraction=0.5)
COLORS = {"a": RED, "b": GREEN, "c": BLUE, "d": RED}
HALF = math.sqrt(0.5)


class FlatModel(FakeModel):
    geometry = Euclidean()


def encoder(model: FakeModel, encoding: Encoding = PLAIN) -> CachedEncoder:
    return CachedEncoder(model, encoding=encoding, tokenizer=FakeTokenizer())


def write(
    folder: Path, captions: dict[str, str], *, references: dict[str, list[str]] | None = None, bad: int = 0
) -> JudgedCaptions:
    for name, color in COLORS.items():
        pil_image(folder / "images" / f"{name}.png", color)
    for i in range(bad):
        broken(folder / "images" / f"bad{i}.png")
        captions = captions | {f"bad{i}": "green"}
        references = None if references is None else references | {f"bad{i}": ["green"]}
    (folder / "candidates.json").write_text(json.dumps(captions))
    path = None
    if references is not None:
        path = folder / "references.json"
        path.write_text(json.dumps(references))
    return captions_of(folder / "candidates.json", images=folder / "images", references=path)


CAPTIONS = {"a": "red", "b": "blue", "c": "red blue", "d": "green red"}
REFERENCES = {"a": ["green", "red green"], "b": ["blue"], "c": ["green", "red"], "d": ["green", "red"]}


class TestCaptionScores(EvaluatorContract):
    evaluator_class = CaptionScores

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        data = write(folder, CAPTIONS, references=REFERENCES, bad=bad)
        return CaptionScores(data, encoding=encoding, tokenizer=FakeTokenizer())

    def model(self) -> FlatModel:
        return FlatModel()

    def test_scores_by_hand(self, tmp_path: Path) -> None:
        result = self.make(tmp_path, bad=1)(self.model())
        assert result.items["key"] == ["a.png", "b.png", "c.png", "d.png"]
        assert result.items["caption"] == ["red", "blue", "red blue", "green red"]
        # Images R, G, B, R; captions R, B, R + B, G + R.
        assert result.items["clip_score"] == pytest.approx([2.5, 0, 2.5 * HALF, 2.5 * HALF])
        assert result.items["pac_score"] == pytest.approx([2, 0, 2 * HALF, 2 * HALF])
        # Likeness to the references: R to R + G; B to B; R + B to R; G + R to either.
        likeness = [HALF, 1, HALF, HALF]
        both = [2 * s * r / (s + r) for s, r in zip(result.items["clip_score"], likeness, strict=True)]
        assert result.items["ref_clip_score"] == pytest.approx(both)
        # The model's own score is the dot product.
        assert result.items["model_score"] == pytest.approx([1, 0, 1, 1])
        assert result.metrics["clip_score"] == pytest.approx((2.5 + 5 * HALF) / 4)
        assert (result.meta["unreadable"], result.meta["captions"]) == (1, 5)

    def test_i0t_score_subtracts_the_means(self, tmp_path: Path) -> None:
        result = self.make(tmp_path)(self.model())
        images = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]])
        texts = torch.tensor([[1.0, 0, 0], [0, 0, 1], [1, 0, 1], [1, 1, 0]])
        cosine = torch.cosine_similarity(images - images.mean(0), texts - texts.mean(0))
        assert result.items["i0t_score"] == pytest.approx((2 * cosine.clamp_min(0)).tolist())
        # Image b and its caption have nothing in common but what all others have less of.
        assert result.items["clip_score"][1] == 0.0 < result.items["i0t_score"][1]

    def test_captions_and_references_get_the_prefix(self, tmp_path: Path) -> None:
        seen: list[str] = []

        class Watching(FakeTokenizer):
            def __call__(self, texts: list[str]) -> Tensor:  # type: ignore[override]
                seen.extend(texts)
                return super().__call__(texts)

        data = write(tmp_path, {"a": "red", "b": "blue"}, references={"a": ["red", "green"], "b": ["x blue"]})
        result = CaptionScores(data, encoding=PLAIN, tokenizer=Watching())(self.model())  # type: ignore[arg-type]
        assert sorted(set(seen)) == [f"A photo depicts {text}" for text in ("blue", "green", "red", "x blue")]
        assert result.meta["prefix"] == "A photo depicts "


def test_without_references_there_are_no_reference_scores(tmp_path: Path) -> None:
    result = CaptionScores(write(tmp_path, CAPTIONS), encoding=PLAIN, tokenizer=FakeTokenizer())(FlatModel())
    assert set(result.metrics) == {"clip_score", "pac_score", "i0t_score", "model_score"}


def test_one_image_has_no_i0t_score(tmp_path: Path) -> None:
    data = write(tmp_path, {"a": "red"})
    result = CaptionScores(data, encoding=PLAIN, tokenizer=FakeTokenizer())(FlatModel())
    assert "i0t_score" not in result.metrics and result.metrics["clip_score"] == pytest.approx(2.5)
    assert "no i0t_score: there are 1 images" in result.meta["warnings"][0]


def test_a_caption_that_is_rated_twice_is_scored_once(tmp_path: Path) -> None:
    data = write(tmp_path, {"a": "red", "b": "blue"})
    twice = JudgedCaptions(
        data.images,
        data.keys,
        image=[0, 1, 0],
        captions=["red", "blue", "red"],
        references=None,
        ratings=None,
    )
    result = score_captions(encoder(FlatModel()), twice)
    assert result.meta["distinct_pairs"] == 2
    assert all(len(scores) == 3 and scores[0] == scores[2] for scores in result.scores.values())


def test_cosines_on_a_hyperboloid_are_of_tangent_vectors(tmp_path: Path) -> None:
    geometry = Lorentz()

    class Curved(FakeModel):
        def encode_image(self, images: Tensor, stage: str = "embeddings") -> Tensor:
            return geometry.lift(super().encode_image(images, stage) * 0.3)

        def encode_text(self, tokens: Tensor, stage: str = "embeddings") -> Tensor:
            return geometry.lift(super().encode_text(tokens, stage) * 2.0)

        def scores(self, query: Tensor, key: Tensor, **modalities: str) -> Tensor:
            assert modalities == {"query_modality": "image", "key_modality": "text"}
            return geometry.pairwise_similarity(query, key)

    Curved.geometry = geometry
    data = write(tmp_path, CAPTIONS, references=REFERENCES)
    result = score_captions(encoder(Curved()), data).scores
    flat = score_captions(encoder(FlatModel()), data).scores
    # Directions are those of the flat model; the model's own score sees radii too.
    for name in ("clip_score", "ref_pac_score", "i0t_score"):
        assert result[name] == pytest.approx(flat[name], rel=1e-5, abs=1e-6)
    assert result["model_score"] != pytest.approx(flat["model_score"], rel=1e-2)


def test_only_broken_images_are_an_error(tmp_path: Path) -> None:
    data = write(tmp_path, {"a": "red"})
    broken(tmp_path / "images" / "a.png")
    with pytest.raises(DataError, match=r"images can be read|cannot be read"):
        score_captions(encoder(FlatModel(), Encoding(num_workers=0, max_bad_fraction=1.0)), data)
