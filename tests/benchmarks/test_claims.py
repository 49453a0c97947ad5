import json
from pathlib import Path

import pytest
import torch

from benchmarks.claims import papers, runs
from hypvl.config import LazyConfig


def write(folder: Path, run: str, seed: int, **evaluations: dict[str, float]) -> Path:
    here = folder / f"{run}_{seed}"
    here.mkdir(parents=True)
    (here / runs.PARAMETERS).write_text(json.dumps({"trained": 1000, "image_encoder": 400}))
    for suite in runs.suites(runs.RUNS[run]):
        write_results(here / suite.file, {name: evaluations.get(name, {}) for name in suite.names})
    return here


def write_results(path: Path, evaluations: dict[str, dict[str, float]]) -> None:
    results = {name: {"status": "ok", "metrics": metrics} for name, metrics in evaluations.items()}
    path.write_text(json.dumps({"results": results}))


def test_a_claim_holds_when_its_mean_exceeds_twice_the_spread() -> None:
    assert papers.judge([1.0, 1.1, 0.9], 0.0) == "yes"
    assert papers.judge([1.0, 3.0, -1.0], 0.0) == "no"  # mean 1, standard deviation 2
    assert papers.judge([-1.0, -1.1, -0.9], 0.0) == "no"
    assert (papers.judge([0.1], 0.0), papers.judge([-0.1], 0.0)) == ("seen", "not seen")


def test_rows_compare_the_seeds_that_are_there(tmp_path: Path) -> None:
    for seed, (meru, hycoclip) in enumerate([(2.0, 1.5), (2.2, 1.6), (2.1, 1.5)]):
        write(tmp_path, "meru", seed, scenes_hierarchy={"tie": meru})
        write(tmp_path, "hycoclip", seed, scenes_hierarchy={"tie": hycoclip})
    write(tmp_path, "meru", 3, scenes_hierarchy={"tie": 9.0})  # its HyCoCLIP run is not finished
    (row,) = [r for r in papers.rows(tmp_path, [0, 1, 2, 3]) if r["claim"] == "d"]
    assert row["mean"] == pytest.approx((0.5 + 0.6 + 0.6) / 3)
    assert (row["seeds"], row["holds"]) == (3, "yes")
    assert row["figures"]["MERU"] == pytest.approx(2.1)
    assert "| d | HyCoCLIP errs less far" in papers.table([row])


def test_gap_ratio_comes_from_both_evaluations_of_clip(tmp_path: Path) -> None:
    retrieval = {"text_to_image_recall@1": 40.0, "image_to_text_recall@1": 50.0}
    here = write(tmp_path, "clip", 0, scenes_gap={"centroid_distance": 0.5}, scenes_retrieval=retrieval)
    (here / "standardized.json").unlink()
    assert papers.rows(tmp_path, [0]) == []  # not yet evaluated without the means
    without = {"scenes_gap": {"centroid_distance": 0.01}, "scenes_retrieval": retrieval}
    write_results(here / "standardized.json", without)
    result = {row["claim"]: row for row in papers.rows(tmp_path, [0])}
    assert result["b"]["mean"] == pytest.approx(0.05 - 0.02)
    assert result["b2"]["mean"] == pytest.approx(1.0)


def test_a_student_keeps_a_share_of_its_teacher(tmp_path: Path) -> None:
    for run, (digits, shapes) in {"clip": (90.0, 70.0), "seed": (80.0, 64.0)}.items():
        sets = {"digits": digits, "scenes_shape_seen": shapes}
        evaluations = {name: {"top1_accuracy": value} for name, value in sets.items()}
        retrieval = {"text_to_image_recall@1": 1.0, "image_to_text_recall@1": 1.0}
        gap = {"centroid_distance": 1.0}
        write(tmp_path, run, 0, **evaluations, scenes_retrieval=retrieval, scenes_gap=gap)
    (row,) = [r for r in papers.rows(tmp_path, [0]) if r["claim"] == "f"]
    assert row["mean"] == pytest.approx(100 * 72 / 80 - 80)
    assert row["holds"] == "seen"


def test_trained_parameters_are_those_of_the_optimizer(tmp_path: Path) -> None:
    model = {"visual.w": torch.zeros(3, 2), "visual.b": torch.zeros(2), "visual_head.w": torch.zeros(5)}
    names = ["model.visual.w", "model.visual_head.w", "objective.terms.a.w"]
    torch.save({"model": model, "optimizer_parameters": names}, tmp_path / "checkpoint_final.pth")
    counts = runs.count_parameters(tmp_path / "checkpoint_final.pth")
    assert counts == {"trained": 11, "image_encoder": 8}


def test_each_run_comes_after_the_one_that_it_starts_from() -> None:
    names = list(runs.RUNS)
    for place, (name, run) in enumerate(runs.RUNS.items()):
        assert run.start is None or run.start in names[:place], name


@pytest.mark.parametrize("run", runs.RUNS)
def test_every_run_names_a_recipe_and_terms_that_exist(run: str, tmp_path: Path) -> None:
    cfg = LazyConfig.load(runs.ROOT / "configs" / f"train_{runs.RUNS[run].recipe}_demo.py")
    cfg = LazyConfig.apply_overrides(cfg, runs.settings(run, 3, tmp_path, steps=60))
    expected = (
        [74, 75] if run == "protoclip" else [20, 40]
    )  # an episode is 75 steps, whatever the length of the run
    assert all(list(between) == expected for between in (cfg.train.objective.get("warmup") or {}).values())
    assert cfg.train.num_iterations == (60 if runs.RUNS[run].steps else 1) and cfg.train.seed == 3
    if runs.RUNS[run].start is not None:
        assert cfg.train.init_checkpoint == str(tmp_path / "clip_3" / runs.FINAL)


@pytest.mark.parametrize("suite", ["eval_demo", "eval_knn_demo"])
def test_evaluations_exist(suite: str) -> None:
    cfg = LazyConfig.load(runs.ROOT / "configs" / f"{suite}.py")
    asked = [s.names for run in runs.RUNS.values() for s in runs.suites(run) if s.config == suite]
    assert {name for names in asked for name in names} <= set(cfg.evaluate)


def test_runs_are_compared_by_mean_and_spread(tmp_path: Path) -> None:
    order = {"radial_order_auc": 90.0, "radial_order_auc_null": 88.0}
    cones = {"saturated_cones_text": 3.0, "saturated_cones_image": 1.0}
    for run, geometry in {"meru": order | cones, "clip": order}.items():
        for seed, tie in enumerate((1.0, 2.0)):
            write(
                tmp_path, run, seed, scenes_shape_seen={"top1_accuracy": 70.0}, digits={"top1_accuracy": 10.0},
                scenes_retrieval={"text_to_image_recall@1": 4.0, "image_to_text_recall@1": 6.0},
                scenes_hierarchy={"tie": tie}, scenes_choices={"accuracy": 60.0},
                scenes_radii={"text_nearer_root_share": 99.0}, scenes_traversals={"hierarchy_share": 40.0},
                scenes_geometry=geometry,
            )  # fmt: skip
    clip, meru = papers.compared(tmp_path, [0, 1, 2]).splitlines()[2:]
    shared = "2 | 70 ± 0 | 5 ± 0 | 1.5 ± 0.71 | 60 ± 0 | 99 ± 0 | 40 ± 0 | 90 ± 0 | 88 ± 0 |"
    assert meru == f"| meru | {shared} 3 ± 0 | 1 ± 0 |"
    assert clip == f"| clip | {shared} - | - |"  # no cones
