"""What numbers say in words."""

import math

import pytest

from hypvl.diagnostics.verdict import idle_geometry, interpret

WORKING = {
    "curv": 1.0,
    "text_radius_q50": 1.2,
    "image_radius_q50": 1.9,
    "flat_distortion": 21.0,
    "cone_violation_rate": 12.0,
    "cone_violation_rate_shuffled": 71.0,
    "saturated_cones_text": 1.0,
    "radial_order_auc": 93.0,
    "radial_order_auc_null": 88.0,
    "radial_order_auc_null_quantile": 100.0,
    "relative_modality_gap": 0.4,
    "effective_rank_image": 100.0,
    "effective_rank_text": 60.0,
    "effective_rank_image_share": 40.0,
    "effective_rank_text_share": 24.0,
    "clipped_image": 0.0,
    "clipped_text": 0.0,
}
FLAT = {"text_radius_q50": 0.19, "image_radius_q50": 0.2, "flat_distortion": 0.4}
SATURATED = {"saturated_cones_text": 97.0}
UNORDERED = {"radial_order_auc": 51.0, "radial_order_auc_null": 50.0, "radial_order_auc_null_quantile": 60.0}


def levels(**changes: float) -> dict[str, str]:
    return {finding.part: finding.level for finding in interpret({**WORKING, **changes}).findings}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nothing_is_judged_by_what_is_no_number(value: float) -> None:
    for name in WORKING:
        verdict = interpret({**WORKING, name: value})
        assert verdict.status == "not finite" and [finding.level for finding in verdict.findings] == ["bad"]
        assert f"Not finite: {name} is NaN or infinite" in verdict.text
    assert "and 1 more numbers are NaN" in interpret({"curv": math.nan, "text_radius_q50": value}).text


def test_a_working_space() -> None:
    verdict = interpret(WORKING)
    assert verdict.status == "works"
    assert {finding.level for finding in verdict.findings} == {"good"}
    assert "median u = 1.2 for texts and 1.9 for images at c = 1" in verdict.text
    assert "texts fill 60.0 directions, 24% of what they could" in verdict.text


def test_the_published_image_is_idle() -> None:
    verdict = interpret({**WORKING, **FLAT, **SATURATED, **UNORDERED})
    assert verdict.status == "idle"
    assert verdict.text.startswith("Almost flat: median u = 0.19")
    assert "Cones saturated: 97% of texts hold a half space" in verdict.text
    assert "No radial order" in verdict.text
    assert interpret({**WORKING, **FLAT}).status == "partly"
    assert (
        "100% of curvatures at the limit of their range"
        in interpret({**WORKING, "curv_at_bound": 100.0}).text
    )


def test_each_part_by_itself() -> None:
    assert levels(cone_violation_rate=95.0)["cones"] == "bad"
    assert levels(cone_violation_rate=69.0)["cones"] == "bad"  # 71 of shuffled pairs: no difference
    assert levels(saturated_cones_text=60.0)["cones"] == "note"
    # All texts inside all images, whoever they belong to: modalities are ordered, pairs are not.
    assert levels(radial_order_auc=100.0, radial_order_auc_null_quantile=50.0)["order"] == "note"
    assert levels(relative_modality_gap=0.7)["gap"] == "note"
    assert levels(clipped_image=0.5)["clipping"] == "bad"
    assert interpret({**WORKING, "effective_rank_text_share": 0.5}).status == "collapsed"


def test_what_is_absent_is_not_judged() -> None:
    sphere = interpret(
        {"radial_order_auc": 40.0, "radial_order_auc_null": 40.0, "radial_order_auc_null_quantile": 50.0}
    )
    assert sphere.status == "no curvature"
    assert [finding.part for finding in sphere.findings] == ["order"]
    assert "texts lie nearer the centre than their image" in sphere.text  # it has no root
    assert interpret({}).findings == ()


@pytest.mark.parametrize(("changes", "words"), [
    ({"curv_at_floor": 100.0, **SATURATED}, "curvature at its floor, cones saturated"),
    ({"curv_at_floor": 100.0, "cone_violation_rate": 98.0}, "curvature at its floor, cones inactive"),
    ({**FLAT, **SATURATED}, "space almost flat, cones saturated"),
    ({**FLAT, "saturated_cones_text": 60.0}, "space almost flat, cones saturated"),
    ({**FLAT, "saturated_cones_text": 40.0}, None),
    ({"curv_at_floor": 100.0}, None),  # its cones still tell pairs from shuffled ones
    ({"curv_at_floor": 50.0, **SATURATED}, None),  # half of the factors are still curved
    (SATURATED, None),
    (FLAT, None),
    ({"curv_at_floor": 100.0, **SATURATED, "curv": math.nan}, None),
])  # fmt: skip
def test_an_idle_geometry_is_named_in_a_few_words(changes: dict[str, float], words: str | None) -> None:
    assert idle_geometry({**WORKING, **changes}) == words


def test_a_space_without_cones_or_curvature_is_never_idle() -> None:
    assert idle_geometry({name: value for name, value in WORKING.items() if name != "curv"}) is None
    assert idle_geometry({name: value for name, value in WORKING.items() if "cone" not in name}) is None
