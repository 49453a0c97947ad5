"""Traversals over captions with levels, with a model whose cones are known."""

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from hypvl.embedding.encode import Encoding
from hypvl.errors import DataError, MissingDataError
from hypvl.evaluation.protocol import Evaluator
from hypvl.evaluation.radii import EmbeddingRadii
from hypvl.evaluation.traversal_levels import TraversalLevels
from hypvl.geometry.lorentz import exp_map0
from hypvl.geometry.sphere import Sphere
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import BLUE, GREEN, RED, FakeModel, FakeTokenizer, broken, image as pil_image
from tests.evaluation.hyperbolic import Hyperbolic

LEVELS = {"shape": 1, "red": 2, "green": 2, "blue": 2}


def scene(image: str, *chain: str) -> dict[str, Any]:
    return {"image": image, "chain": list(chain), "captions": [], "boxes": []}


def files(folder: Path, *, bad: int = 0, levels: Any = LEVELS) -> tuple[Path, Path]:
    colors = {"a": RED, "b": RED, "c": GREEN, "d": BLUE}
    for name, color in colors.items():
        pil_image(folder / "scenes" / f"{name}.png", color)
    scenes = [scene("scenes/a.png", "shape", "red"), scene("scenes/b.png", "shape")]
    scenes += [scene("scenes/c.png", "shape", "green"), scene("scenes/d.png", "shape", "blue")]
    scenes[1]["boxes"] = [{"box": [0, 0, 1, 1], "phrase": "red"}]
    scenes[3]["captions"], scenes[3]["chain"] = (
        [{"text": "green", "level": 2}],
        ["shape"],
    )  # "blue" is not said
    for i in range(bad):
        broken(folder / "scenes" / f"bad{i}.png")
        scenes.append(scene(f"scenes/bad{i}.png", "shape"))
    hierarchy, table = folder / "hierarchy.json", folder / "levels.json"
    hierarchy.write_text(json.dumps({"scenes": scenes}))
    table.write_text(json.dumps({"levels": levels}))
    return hierarchy, table


class TestTraversalLevels(EvaluatorContract):
    evaluator_class: ClassVar[type[Evaluator]] = TraversalLevels

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        folder.mkdir(exist_ok=True)
        return TraversalLevels(
            *files(folder, bad=bad), steps=11, encoding=encoding, tokenizer=FakeTokenizer()
        )

    def model(self) -> Hyperbolic:
        return Hyperbolic()

    def test_traversals_climb_from_the_colour_to_the_shape(self, tmp_path: Path) -> None:
        result = self.make(tmp_path)(self.model())
        assert result.items["key"] == ["a", "b", "c", "d"]
        colors = ["red", "red", "green", "blue"]
        assert result.items["texts"] == [[color, "shape", "[ROOT]"] for color in colors]
        assert result.items["levels"] == [[2, 1, None]] * 4
        assert result.items["true"] == [[True, True, None]] * 3 + [[False, True, None]]
        assert result.metrics == pytest.approx(
            {
                "hierarchy_share": 100.0,
                "two_levels_share": 100.0,
                "never_more_specific_share": 100.0,
                "mean_levels": 2.0,
                "true_text_share": 100.0 * 7 / 8,
                "radius_level_1": 0.2 * 3**0.5,
                "radius_level_2": 1.0,
            },
            abs=1e-5,
        )
        assert (result.meta["root"], result.meta["entailment_mask"]) == ("geometry", True)
        assert result.samples["mean_levels"] == [2.0] * 4 and result.samples["hierarchy_share"] == [100.0] * 4

    def test_limit_spreads_scenes_over_the_file(self, tmp_path: Path) -> None:
        evaluator = TraversalLevels(
            *files(tmp_path), limit=2, encoding=Encoding(num_workers=0), tokenizer=FakeTokenizer()
        )
        assert evaluator(self.model()).items["key"] == ["a", "c"]
        with pytest.raises(ValueError, match="limit: got 0"):
            TraversalLevels(*files(tmp_path), limit=0)


@pytest.mark.parametrize(
    ("hierarchy", "levels", "message"),
    [
        (None, {"levels": {}}, r'levels\.json: has no \{"levels"'),
        (None, {"levels": {"red": 0}}, "the level of 'red' is 0"),
        (None, ["red"], r'levels\.json: has no \{"levels"'),
        ({"scenes": []}, None, r'hierarchy\.json: has no \{"scenes"'),
        (
            {"scenes": [{"image": "a.png"}]},
            None,
            r"hierarchy\.json: lacks 'captions'; expected scenes as hypvl demo-data",
        ),
        ("{", None, r"hierarchy\.json: is not valid JSON"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, hierarchy: Any, levels: Any, message: str) -> None:
    paths = files(tmp_path)
    for path, content in zip(paths, (hierarchy, levels), strict=True):
        if content is not None:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataError, match=message):
        TraversalLevels(*paths)


def test_absent_files_say_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"is not there .*; make it with hypvl demo-data"):
        TraversalLevels(tmp_path / "hierarchy.json", files(tmp_path)[1].with_name("absent.json"))


class Captioned:
    """A retrieval set over colours."""

    def __init__(self, folder: Path, bad: int) -> None:
        from hypvl.datasets.images import Images

        colors = {"a": RED, "b": GREEN, "c": BLUE, "d": RED}
        paths = [pil_image(folder / f"{name}.png", color) for name, color in colors.items()]
        paths += [broken(folder / f"bad{i}.png") for i in range(bad)]
        self.images = Images.from_files(paths)
        self.captions = ["red", "shape", "blue", "red green", *["shape"] * bad]
        self.caption_image = list(range(4 + bad))
        self.keys = [path.stem for path in paths]


class TestEmbeddingRadii(EvaluatorContract):
    evaluator_class: ClassVar[type[Evaluator]] = EmbeddingRadii

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        return EmbeddingRadii(Captioned(folder, bad), encoding=encoding, tokenizer=FakeTokenizer())

    def model(self) -> Hyperbolic:
        return Hyperbolic()

    def test_radii_are_geodesic_distances(self, tmp_path: Path) -> None:
        result = self.make(tmp_path)(self.model())
        texts = [1.0, 0.2 * 3**0.5, 1.0, 2**0.5]
        mean = sum(texts) / 4
        spread = (sum((r - mean) ** 2 for r in texts) / 4) ** 0.5
        assert result.items["text_radius"] == pytest.approx(texts, abs=1e-5)
        assert result.metrics == pytest.approx(
            {
                "image_radius": 2.0,
                "image_radius_std": 0.0,
                "text_radius": mean,
                "text_radius_std": spread,
                "text_nearer_root_share": 100.0,
                "text_nearer_root_share_chance": 50.0,
            },
            abs=1e-5,
        )
        assert result.meta["root"] == "geometry"

    def test_a_tie_counts_half(self, tmp_path: Path) -> None:
        class Nearer(Hyperbolic):
            def encode_image(self, images: Tensor, stage: str = "embeddings") -> Tensor:
                return exp_map0(FakeModel.encode_image(self, images), curv=1.0)

        # "red" and "blue" tie with their images, "shape" is nearer to the root, "red green" farther from it.
        result = self.make(tmp_path)(Nearer())
        assert result.metrics["text_nearer_root_share"] == 50.0
        assert result.items["text_radius"][0] == result.items["image_radius"][0]

    def test_without_a_root_the_mean_stands_for_it(self, tmp_path: Path) -> None:
        model = FakeModel()
        model.geometry = Sphere()
        with torch.no_grad():
            model.table.copy_(torch.nn.functional.normalize(model.table + 0.1, dim=-1))
        result = self.make(tmp_path)(model)
        assert result.meta["root"] == "mean of the embeddings"
        assert all(0.0 <= value <= 2.0 for value in result.items["text_radius"])
