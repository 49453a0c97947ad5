"""i0t.json: centring, gap metrics, shifts, batch norms, stretched positions and recall (not the losses)."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hypvl.config import LazyConfig, instantiate
from hypvl.diagnostics.gap import (
    centroid_distance,
    gap_direction,
    gap_metrics,
    move_features,
    signed_centroid_distance,
)
from hypvl.encoders.feature_transforms import BatchStandardize, Centering
from hypvl.evaluation.mean_removal import centre, flat_mean
from hypvl.geometry.scorers import Cosine
from hypvl.geometry.sphere import Sphere, normalize
from hypvl.losses.base import IMAGE, TEXT
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.positions import stretch_positions
from hypvl.training.step import Learner
from tests.metrics.composed import retrieval_recall
from tests.parity.recipes import CONFIGS
from tests.parity.reference import cases, load, number

CLOSE = {"rtol": 1e-9, "atol": 1e-9}  # as the file says
METRICS = {  # the names of the file where they are not ours
    "mean_paired_euclidean": "mean_paired_distance",
    "align_loss_alpha2": "align",
    "mean_unpaired_cross_cosine": "mean_unpaired_cosine",
    "linear_separability_lstsq_accuracy": "linear_separability",
}
SPHERE = Sphere()


def tensor(value: Any) -> Tensor:
    return torch.tensor(number(value), dtype=torch.float64)


def section(name: str) -> dict[str, Any]:
    """A part of the file; skips the test where the file or the part is not there."""
    content = load("i0t")
    if content is None or name not in content:
        pytest.skip(f"i0t.json or its {name} is not there")
    return content[name]


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(torch.as_tensor(found, dtype=torch.float64), tensor(expected), **CLOSE)


def check(pairs: list[tuple[str, Any]], case: dict[str, Any]) -> None:
    """Compare what the case gives; at least one of it."""
    given = [(key, result) for key, result in pairs if key in case]
    assert given and all(result is not None for _, result in given)
    for key, result in given:
        close(result, case[key])


class Given(nn.Module):
    """An encoder that hands on the features it is given."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.image_size, self.context_length, self.out_features = width, 1, 1, width

    def forward(self, x: Tensor) -> Tensor:
        return x


def given_features(width: int, **options: Any) -> DualEncoder:
    """A CLIP whose inputs are features already."""
    return DualEncoder(
        Given(width), Given(width), visual_head=Given, textual_head=Given, geometry=SPHERE, scorer=Cosine(), **options
    ).double()  # fmt: skip


def rows_of(kind: str) -> list[tuple[str, Tensor]]:
    """(modality, centred rows) of one kind of mean."""
    post = section("i0t_post")
    return [(m, tensor(post[f"{kind}_{m}"])) for m in ("image", "text") if f"{kind}_{m}" in post]


def kinds() -> list[str]:
    post = (load("i0t") or {}).get("i0t_post", {})
    return sorted({match[1] for key in post if (match := re.fullmatch(r"(\w+_mean)_(?:image|text)", key))})


@pytest.mark.parametrize(
    "kind", kinds() or [pytest.param("none", marks=pytest.mark.skip(reason="no i0t_post"))]
)
def test_i0t_post(kind: str) -> None:
    inputs = section("inputs")
    for modality, expected in rows_of(kind):
        x = tensor(inputs[modality])
        key = f"{kind.removesuffix('_mean')}_{modality}_mean"
        mean = flat_mean(x, geometry=SPHERE) if key not in inputs else tensor(inputs[key])
        torch.testing.assert_close(centre(x, mean, geometry=SPHERE), expected, **CLOSE)
        model = given_features(x.shape[1], **{f"{modality}_transforms": Centering})
        model.transforms(modality)[0].fill_(mean)  # type: ignore[arg-type,operator]
        torch.testing.assert_close(model.embed(x, modality=modality), expected, **CLOSE)  # type: ignore[arg-type]


@pytest.mark.parametrize("modality", ["image", "text"])
def test_own_means(modality: str) -> None:
    close(
        flat_mean(tensor(section("inputs")[modality]), geometry=SPHERE),
        section("i0t_post")[f"mean_{modality}"],
    )


def test_similarities_after_it() -> None:
    post = section("i0t_post")
    if "similarity_own_mean" not in post:
        pytest.skip("i0t.json gives no similarities")
    rows = dict(rows_of("own_mean"))
    close(SPHERE.pairwise_similarity(rows["image"], rows["text"]), post["similarity_own_mean"])


@pytest.mark.parametrize("named", cases("i0t", "gap_metrics"))
def test_gap_metrics(named: tuple[str, Any] | None) -> None:
    assert named is not None
    name, expected = named
    if not isinstance(expected, dict):
        pytest.skip(f"{name} is a note")
    inputs = section("inputs")
    if name == "before":
        rows = {m: tensor(inputs[m]) for m in ("image", "text")}
    else:
        rows = dict(rows_of(name.removeprefix("after_")))
    result = gap_metrics(rows["image"], rows["text"])
    for key, value in expected.items():
        assert result[METRICS.get(key, key)] == pytest.approx(number(value), rel=1e-9, abs=1e-9), key


@pytest.mark.parametrize("named", cases("i0t", "move_features"))
def test_move_features(named: tuple[str, Any] | None) -> None:
    assert named is not None
    name, expected = named
    if not isinstance(expected, dict):
        pytest.skip(f"{name} is a note")
    inputs = section("inputs")
    x, y = tensor(inputs["image"]), tensor(inputs["text"])
    moved = move_features(x, y, delta=float(name.partition("=")[2]), geometry=SPHERE)
    signed = signed_centroid_distance(*moved, direction=gap_direction(x, y))
    check(
        [
            ("image", moved[0]),
            ("text", moved[1]),
            ("centroid_distance", centroid_distance(*moved)),
            ("signed_centroid_distance", signed),
        ],
        expected,
    )


def test_i0t_async() -> None:
    """One training step of the two batch norms through the learner, then evaluation."""
    case = section("i0t_async")
    raw = {m: tensor(case[f"raw_{m}"]).requires_grad_() for m in ("image", "text")}
    model = given_features(
        raw["image"].shape[1], image_transforms=BatchStandardize, text_transforms=BatchStandardize
    )
    norms: dict[str, Any] = {m: model.transforms(m)[0] for m in ("image", "text")}  # type: ignore[arg-type]
    with torch.no_grad():
        for m, norm in norms.items():
            norm.weight.copy_(tensor(case[f"gamma_{m}"]))
            norm.bias.copy_(tensor(case[f"beta_{m}"]))
        scale = re.search(r"scale exp\(([\d.]+)\)", case.get("formula", ""))
        model.scorer.log_scale.fill_(4.6052 if scale is None else float(scale[1]))
    objective = LazyConfig.load(CONFIGS / "common" / "objective" / "cyclip.py").objective
    learner = Learner(model, instantiate(objective))
    learner.train()

    before = {k: v.clone() for k, v in model.state_dict().items()}
    output, ctx = learner(raw)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    output.total.backward()
    learner.update_(ctx)

    cyclic = 0.25 * (output.terms["in_modal"] + output.terms["cross_modal"])
    pairs = [
        ("loss", output.total),
        ("contrastive", output.terms["contrastive"]),
        ("cyclic_weighted", cyclic),
    ]
    trained = {view.modality: ctx.embeddings(view) for view in (IMAGE, TEXT)}
    learner.eval()
    with torch.no_grad():
        evaluated = {m: model.embed(raw[m], modality=m) for m in raw}  # type: ignore[arg-type]
        start = [normalize(x) for x in raw.values()]
    for m, norm in norms.items():
        pairs += [
            (f"train_final_{m}", trained[m]),
            (f"grad_gamma_{m}", norm.weight.grad),
            (f"grad_beta_{m}", norm.bias.grad),
            (f"grad_raw_{m}", raw[m].grad),
            (f"running_mean_{m}_after_1_step", norm.running_mean),
            (f"running_var_{m}_after_1_step", norm.running_var),
            (f"eval_final_{m}", evaluated[m]),
        ]
    distances = {"before": start, "train": list(trained.values()), "eval": list(evaluated.values())}
    pairs += [(f"centroid_distance_{w}", centroid_distance(*rows)) for w, rows in distances.items()]
    check(pairs, case)


def test_positional_stretch() -> None:
    case = section("positional_stretch")
    options = {key: int(case[key]) for key in ("keep", "factor") if key in case}
    close(stretch_positions(tensor(case["input"]), **options), case["output"])


def recalls() -> list[Any]:
    """(way, cut-offs, percent) of each list of recalls."""
    given = (load("i0t") or {}).get("recall", {})
    result = [
        pytest.param(match[1], [int(k) for k in match[2].split(",")], number(value), id=key)
        for key, value in given.items()
        if (match := re.match(r"(i2t|t2i) R@([\d,]+)", key))
    ]
    return result or [
        pytest.param("i2t", [1], None, marks=pytest.mark.skip(reason="i0t.json has no recalls"))
    ]


@pytest.mark.parametrize(("way", "ks", "expected"), recalls())
def test_recall(way: str, ks: list[int], expected: list[float]) -> None:
    case = section("recall")
    scores = tensor(
        next(value for key, value in case.items() if key.startswith("similarity"))
    )  # (images, captions)
    owner = [int(image) for image in case["caption_to_image"]]
    if way == "t2i":
        scores, right = scores.T, [{image} for image in owner]
    else:
        right = [{t for t, image in enumerate(owner) if image == own} for own in range(len(scores))]
    result = retrieval_recall(scores, right, ks=ks)
    assert [result[k] for k in ks] == pytest.approx(expected, rel=1e-12)
