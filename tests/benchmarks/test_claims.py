import json
from pathlib import Path

import pytest

from benchmarks import claims
from hypvl.config import LazyConfig


def write(folder: Path, run: str, seed: int, **evaluations: dict[str, float]) -> None:
    here = folder / f"{run}_{seed}"
    here.mkdir(parents=True)
    all_of_them = {name: evaluations.get(name, {}) for name in claims.EVALUATIONS}
    results = {name: {"status": "ok", "metrics": metrics} for name, metrics in all_of_them.items()}
    (here / "results.json").write_text(json.dumps({"results": results}))


def test_a_claim_holds_when_its_mean_exceeds_twice_the_spread() -> None:
    assert claims.judge([1.0, 1.1, 0.9], 0.0) == "yes"
    assert claims.judge([1.0, 3.0, -1.0], 0.0) == "no"  # mean 1, standard deviation 2
    assert claims.judge([-1.0, -1.1, -0.9], 0.0) == "no"
    assert (claims.judge([0.1], 0.0), claims.judge([-0.1], 0.0)) == ("seen", "not seen")


def test_rows_compare_the_seeds_that_are_there(tmp_path: Path) -> None:
    for seed, (meru, hycoclip) in enumerate([(2.0, 1.5), (2.2, 1.6), (2.1, 1.5)]):
        write(tmp_path, "meru", seed, scenes_hierarchy={"tie": meru})
        write(tmp_path, "hycoclip", seed, scenes_hierarchy={"tie": hycoclip})
    write(tmp_path, "meru", 3, scenes_hierarchy={"tie": 9.0})  # its HyCoCLIP run is not finished
    (row,) = [r for r in claims.rows(tmp_path, [0, 1, 2, 3]) if r["claim"] == "d"]
    assert row["mean"] == pytest.approx((0.5 + 0.6 + 0.6) / 3)
    assert (row["seeds"], row["holds"]) == (3, "yes")
    assert row["figures"]["MERU"] == pytest.approx(2.1)
    assert "| d | HyCoCLIP errs less far" in claims.table([row])


def test_gap_ratio_comes_from_both_evaluations_of_clip(tmp_path: Path) -> None:
    retrieval = {"text_to_image_recall@1": 40.0, "image_to_text_recall@1": 50.0}
    write(tmp_path, "clip", 0, scenes_gap={"centroid_distance": 0.5}, scenes_retrieval=retrieval)
    assert claims.rows(tmp_path, [0]) == []  # not yet evaluated without the means
    after = {
        "scenes_gap": {"status": "ok", "metrics": {"centroid_distance": 0.01}},
        "scenes_retrieval": {"status": "ok", "metrics": retrieval},
    }
    (tmp_path / "clip_0" / "standardized.json").write_text(json.dumps({"results": after}))
    result = {row["claim"]: row for row in claims.rows(tmp_path, [0])}
    assert result["b"]["mean"] == pytest.approx(0.05 - 0.02)
    assert result["b2"]["mean"] == pytest.approx(1.0)


@pytest.mark.parametrize("run", claims.RUNS)
def test_every_run_names_a_recipe_and_terms_that_exist(run: str) -> None:
    recipe, overrides = claims.RUNS[run]
    cfg = LazyConfig.load(claims.ROOT / "configs" / f"train_{recipe}_demo.py")
    warm = [f"train.objective.warmup.{term}=[1,2]" for term in claims.WARM.get(run, ())]
    cfg = LazyConfig.apply_overrides(cfg, [*overrides, *warm])
    assert set(cfg.train.objective.get("warmup", {})) == set(claims.WARM.get(run, ()))
