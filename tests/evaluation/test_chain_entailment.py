"""HierarCaps-PEP with a model whose cones are known."""

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from hypvl.datasets.hierarchy.caption_chains import CaptionChains
from hypvl.datasets.images import Images
from hypvl.embedding.encode import Encoding
from hypvl.errors import DataError
from hypvl.evaluation.chain_entailment import ChainEntailment
from hypvl.evaluation.pep import entailment_scores
from hypvl.evaluation.protocol import Evaluator
from hypvl.geometry.euclidean import Euclidean
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import BLUE, GREEN, RED, FakeModel, FakeTokenizer, broken, image
from tests.evaluation.hyperbolic import Hyperbolic

COLORS = {"red": RED, "green": GREEN, "blue": BLUE, "yellow": (178, 178, 0)}
CHAINS = [["red", "red blue"], ["green", "green blue"], ["blue", "red blue"], ["yellow", "shape"]]


def chains(folder: Path, *, bad: int = 0) -> CaptionChains:
    paths = [image(folder / f"{name}.png", color) for name, color in COLORS.items()]
    paths += [broken(folder / f"bad{i}.png") for i in range(bad)]
    texts = CHAINS + [["red", "green"]] * bad
    return CaptionChains(Images.from_files(paths), texts, keys=[path.stem for path in paths])


class TestChainEntailment(EvaluatorContract):
    evaluator_class: ClassVar[type[Evaluator]] = ChainEntailment

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        return ChainEntailment(chains(folder, bad=bad), encoding=encoding, tokenizer=FakeTokenizer())

    def model(self) -> Hyperbolic:
        return Hyperbolic()

    def test_all_pairs_by_enumeration(self, tmp_path: Path) -> None:
        """More negatives are asked for than there are: every pair of a caption and an image counts."""
        model = self.model()
        result = self.make(tmp_path)(model)
        names = ["red", "red blue", "green", "green blue", "blue", "yellow", "shape"]
        pairs = [(text, image) for image in range(4) for text in range(7)]
        own = [[names.index(text) for text in chain] for chain in CHAINS]
        true = [text in own[image] for text, image in pairs]
        assert (result.meta["true_pairs"], result.meta["false_pairs"]) == (8, 20)
        model.train(False)
        texts = model.encode_text(FakeTokenizer()(names))
        pixels = torch.tensor(list(COLORS.values()), dtype=torch.uint8)[:, :, None, None].expand(-1, 3, 8, 8)
        images = model.encode_image(pixels)
        rows, columns = (list(side) for side in zip(*pairs, strict=True))
        both = entailment_scores(model.geometry, texts[rows], images[columns])
        assert both is not None
        for way, values in zip(("angle", "margin"), both, strict=True):
            values = values.detach().double().numpy()
            assert result.metrics[f"auroc_{way}"] == pytest.approx(
                100 * roc_auc_score(true, values), abs=0.01
            )
            expected = 100 * average_precision_score(true, values)
            assert result.metrics[f"ap_{way}"] == pytest.approx(expected, abs=0.01)
        assert result.metrics["ap_margin_chance"] == pytest.approx(100 * 8 / 28)
        # A colour word has its image straight behind it, and no other image there.
        assert result.metrics["auroc_angle_level_1"] == 100.0
        assert result.items["key"] == list(COLORS)
        of_red = result.items["auroc_margin"][0]
        mine = both[1].detach()[:7].numpy()
        assert of_red == pytest.approx(100 * roc_auc_score(true[:7], mine))

    def test_negatives_are_drawn_from_other_chains(self, tmp_path: Path) -> None:
        few = ChainEntailment(
            chains(tmp_path), negatives=2, tokenizer=FakeTokenizer(), encoding=Encoding(num_workers=0)
        )
        result = few(self.model())
        assert (result.meta["true_pairs"], result.meta["false_pairs"]) == (8, 8)
        own = [[0, 1], [2, 3], [4, 1], [5, 6]]
        drawn = few._negatives(own, 7)
        assert all(
            len(set(mine)) == 2 and not set(mine) & set(chain) for mine, chain in zip(drawn, own, strict=True)
        )
        few.seed = 1
        assert few._negatives(own, 7) != drawn

    def test_an_unreadable_image_is_left_out(self, tmp_path: Path) -> None:
        result = self.make(tmp_path, bad=1)(self.model())
        assert result.items["auroc_margin"][-1] is None
        assert result.meta["true_pairs"] == 8 and result.meta["unreadable"] == 1

    def test_without_cones_only_the_models_score_is_measured(self, tmp_path: Path) -> None:
        model = FakeModel()
        model.geometry = Euclidean()
        result = self.make(tmp_path)(model)
        assert result.meta["main_metric"] == "auroc_score" in result.metrics
        assert not any("margin" in name for name in result.metrics)
        assert set(result.items["auroc_margin"]) == {None}

    def test_one_chain_for_all_has_no_false_pairs(self, tmp_path: Path) -> None:
        data = chains(tmp_path)
        data.chains = [["red", "red blue"]] * 4
        with pytest.raises(DataError, match="all chains hold the same texts"):
            ChainEntailment(data, tokenizer=FakeTokenizer(), encoding=Encoding(num_workers=0))(self.model())
        with pytest.raises(ValueError, match="negatives: got 0"):
            ChainEntailment(data, negatives=0)
