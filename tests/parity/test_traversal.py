"""Interpolation to the root and the scores along the way, against traversal.json."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.evaluation.traversal import entails, interpolate_to_root, mask_scores, traverse
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scorers import Cosine, NegativeDistance
from hypvl.geometry.sphere import Sphere
from tests.parity.reference import cases, number

# The published mask value; ours is -inf.
MASKED = -1e12
# fp64 sums in another order, and the reference's epsilons; the README there allows 1e-7 for a cleaner formula.
TOLERANCE = {"rtol": 1e-7, "atol": 1e-7}
# No epsilon matters here; tight enough to tell fp32 weights from fp64 ones.
INTERPOLATION = {"rtol": 1e-9, "atol": 1e-9}


def tensor(values: Any) -> Tensor:
    return torch.tensor(number(values), dtype=torch.float64)


def lorentz(curv: float) -> Lorentz:
    geometry = Lorentz(curv_init=curv).double()
    with torch.no_grad():
        geometry.log_curv.fill_(math.log(curv))  # the constructor keeps fp32 digits only
    return geometry


class Model(torch.nn.Module):
    def __init__(self, geometry: Any, scorer: Any) -> None:
        super().__init__()
        self.geometry, self.scorer = geometry, scorer

    def scores(self, query: Tensor, key: Tensor, **modalities: Any) -> Tensor:
        return self.scorer.scores(self.geometry, query, key, **modalities)


def meru(case: dict[str, Any]) -> tuple[Model, dict[str, Any]]:
    if "MERU" not in case:
        pytest.skip(f"{case.get('name')}: no MERU")
    return Model(lorentz(case["curv"]), NegativeDistance()), case["MERU"]


def clip(case: dict[str, Any]) -> tuple[Model, dict[str, Any]]:
    if "CLIP" not in case:
        pytest.skip(f"{case.get('name')}: no CLIP")
    return Model(Sphere(), Cosine()), case["CLIP"]


def check_scores(scores: Tensor, expected: Tensor) -> None:
    masked = expected <= MASKED / 2
    assert torch.equal(scores == -math.inf, masked)
    torch.testing.assert_close(scores[~masked], expected[~masked], **TOLERANCE)


@pytest.mark.parametrize("case", cases("traversal", "cases"))
@torch.no_grad()
def test_meru(case: dict[str, Any]) -> None:
    model, expected = meru(case)
    image, root = tensor(expected["image_feat_on_hyperboloid"]), tensor(expected["root"])
    texts = tensor(expected["text_feats_on_hyperboloid"])
    points = interpolate_to_root(model.geometry, image, root, steps=case["steps"])
    torch.testing.assert_close(points, tensor(expected["interpolate"]), **INTERPOLATION)
    keys = torch.cat([texts, root[None]])
    scores = model.scores(points, keys, query_modality="image", key_modality="text")
    holds = entails(model.geometry, texts, points)
    assert holds is not None
    check_scores(mask_scores(scores, holds), tensor(expected["calc_scores_has_root_true"]))
    if "calc_scores_has_root_false_without_root_row" in expected:
        bare = scores[:, :-1].masked_fill(~holds, -math.inf)
        check_scores(bare, tensor(expected["calc_scores_has_root_false_without_root_row"]))
    names = [str(i) for i in range(len(texts))]
    walk = traverse(model, image, texts, names, steps=case["steps"])
    best = [*names, "[ROOT]"]
    assert [step.text for step in walk.steps[:-1]] == [best[i] for i in expected["best_index_per_step"][:-1]]
    assert walk.steps[-1].text == "[ROOT]"


@pytest.mark.parametrize("case", cases("traversal", "cases"))
@torch.no_grad()
def test_clip(case: dict[str, Any]) -> None:
    model, expected = clip(case)
    image, root = tensor(expected["image_feat_unit"]), tensor(expected["root"])
    texts = tensor(expected["text_feats_unit"])
    points = interpolate_to_root(model.geometry, image, root, steps=case["steps"])
    torch.testing.assert_close(points, tensor(expected["interpolate"]), **INTERPOLATION)
    scores = model.scores(points, torch.cat([texts, root[None]]), query_modality="image", key_modality="text")
    torch.testing.assert_close(scores, tensor(expected["calc_scores"]), **TOLERANCE)
    names = [str(i) for i in range(len(texts))]
    walk = traverse(model, image, texts, names, root=root, steps=case["steps"])
    best = [*names, "[ROOT]"]
    # Differs: our last point is always called [ROOT]; a stored root shorter than 1 may lose against a text there.
    assert [step.text for step in walk.steps[:-1]] == [best[i] for i in expected["best_index_per_step"][:-1]]
    assert walk.steps[-1].text == "[ROOT]"
