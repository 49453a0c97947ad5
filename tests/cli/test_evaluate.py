"""The command that evaluates, on a tiny model and tiny data."""

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from hypvl.cli.common import run_main
from hypvl.cli.evaluate import main
from hypvl.config import LazyConfig, instantiate
from tests.evaluation.fakes import BLUE, GREEN, RED, broken, image

ROOT = Path(__file__).resolve().parents[2]
EVALUATION = "hypvl.evaluation"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained MERU with one-layer encoders, its config inside."""
    path = tmp_path_factory.mktemp("run") / "checkpoint_final.pth"
    config = LazyConfig.load(ROOT / "hypvl" / "models" / "zoo" / "meru_vit_s.json")
    config.model.textual.arch = "L1_W32_A2"
    config.model.visual.arch, config.model.visual.image_size = "vit_tiny_patch16_224", 32
    config.model.visual.timm_args = {"depth": 1, "embed_dim": 32, "num_heads": 2}
    torch.manual_seed(0)
    model = instantiate(config.model)
    text = LazyConfig.to_yaml(config)
    torch.save({"format_version": 1, "model": model.state_dict(), "iteration": 7, "config": text}, path)
    return path


def colors(folder: Path) -> dict[str, Any]:
    """A classification evaluator over four images, as config data."""
    for name, color in {"red": RED, "green": GREEN, "blue": BLUE}.items():
        image(folder / name / "1.png", color)
    image(folder / "red" / "2.png", RED)
    return {
        "_target_": f"{EVALUATION}.zero_shot.ZeroShotClassification",
        "dataset": {"_target_": f"{EVALUATION}.datasets.classification.ImageFolderSet", "root": str(folder)},
        "encoding": "${encoding}",
    }


def captions(folder: Path) -> dict[str, Any]:
    """A retrieval evaluator over two images."""
    image(folder / "a.png", RED)
    image(folder / "b.png", BLUE)
    lines = ['{"image": "a.png", "caption": "red"}', '{"image": "b.png", "caption": "blue"}']
    (folder / "set.jsonl").write_text("\n".join(lines))
    return {
        "_target_": f"{EVALUATION}.retrieval.ZeroShotRetrieval",
        "dataset": {"_target_": f"{EVALUATION}.datasets.retrieval.jsonl", "path": str(folder / "set.jsonl")},
        "encoding": "${encoding}",
        "ks": [1],
    }


def config(folder: Path, name: str = "eval.yaml", **evaluators: Any) -> str:
    encoding = {
        "_target_": f"{EVALUATION}.encoding.features.Encoding",
        "num_workers": 0,
        "max_bad_fraction": 0.5,
    }
    content = {"encoding": {**encoding, "batch_size": 4}, "evaluate": evaluators}
    (folder / name).write_text(yaml.safe_dump(content, sort_keys=False))
    return str(folder / name)


def run(path: str, checkpoint: Path, output: Path, *more: str) -> tuple[int, dict[str, Any]]:
    arguments = ["--config", path, "--checkpoint-path", str(checkpoint), "--output-dir", str(output), *more]
    code = run_main(main, [*arguments, "--device", "cpu"])
    file = output / "results.json"
    return code, json.loads(file.read_text()) if file.is_file() else {}


def test_results_table_and_provenance(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path, colors=colors(tmp_path / "colors"), pairs=captions(tmp_path / "pairs"))
    code, report = run(path, checkpoint, tmp_path / "out", "--batch-size", "2")
    out = capsys.readouterr().out
    assert code == 0
    assert list(report["results"]) == ["colors", "pairs"]
    result = report["results"]["colors"]
    assert result["status"] == "ok" and result["items"]["label"] == [0, 1, 2, 2]
    right = [p == t for p, t in zip(result["items"]["predicted"], result["items"]["label"], strict=True)]
    assert result["metrics"]["top1_accuracy"] == 100 * sum(right) / 4
    assert result["metrics"]["mean_per_class_accuracy_chance"] == pytest.approx(100 / 3)
    assert report["results"]["pairs"]["metrics"]["text_to_image_recall@1_chance"] == 50.0
    origin = report["provenance"]
    assert origin["iteration"] == 7 and origin["checkpoint"] == str(checkpoint)
    assert re.fullmatch("[0-9a-f]{64}", origin["checkpoint_sha256"])
    assert yaml.safe_load(origin["config"])["encoding"]["batch_size"] == 2  # the flag is in the config
    assert {"hypvl", "git_commit", "packages", "command", "started", "device"} <= set(origin)
    assert (
        "mean_per_class_accuracy" in out and "33.3" in out and str(tmp_path / "out" / "results.json") in out
    )
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        ".results.json.lock",
        "results.csv",
        "results.json",
    ]  # no other stays


def test_what_is_missing_or_fails_stops_no_other(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = colors(tmp_path / "a")
    missing["dataset"]["root"] = str(tmp_path / "gone")
    wrong = {**colors(tmp_path / "b"), "prompts": ["no place for a name"]}
    path = config(tmp_path, gone=missing, wrong=wrong, fine=captions(tmp_path / "c"))
    code, report = run(path, checkpoint, tmp_path / "out")
    err = capsys.readouterr().err
    assert code == 1
    states = {name: result["status"] for name, result in report["results"].items()}
    assert states == {"gone": "missing", "wrong": "failed", "fine": "ok"}
    assert report["results"]["gone"]["metrics"] == {}  # missing is not 0
    assert str(tmp_path / "gone") in report["results"]["gone"]["reason"]
    assert [line.split(",")[0] for line in err.splitlines()[:3]] == [  # as they end; no terminal, no bars
        "[1/3] gone: missing", "[2/3] wrong: failed", "[3/3] fine: ok"
    ]  # fmt: skip
    assert f"gone: missing: {tmp_path / 'gone'}: is not there" in err
    assert "no place for the class name" in err
    assert "2 of 3 evaluations have no result: gone, wrong." in err
    assert "Traceback" not in err


def test_unreadable_images_are_reported(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = colors(tmp_path / "colors")
    broken(tmp_path / "colors" / "red" / "broken.jpg")
    code, report = run(config(tmp_path, colors=node), checkpoint, tmp_path / "out")
    assert code == 0 and report["results"]["colors"]["meta"]["unreadable"] == 1
    assert re.search(r"colors: 1 image cannot be read; the first: .*broken\.jpg", capsys.readouterr().err)


def test_a_run_twice_is_the_same_and_replaces_its_file(checkpoint: Path, tmp_path: Path) -> None:
    path = config(tmp_path, colors=colors(tmp_path / "colors"))
    _, first = run(path, checkpoint, tmp_path / "out")
    _, second = run(path, checkpoint, tmp_path / "out", "--redo")
    for name in ("metrics", "items", "meta"):
        assert first["results"]["colors"][name] == second["results"]["colors"][name]
    assert sorted(p.name for p in (tmp_path / "out").glob("r*")) == ["results.csv", "results.json"]


def test_a_suite_goes_on_where_it_stopped(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    late = colors(tmp_path / "a")
    late["dataset"]["root"] = str(tmp_path / "late")
    path = config(tmp_path, late=late, pairs=captions(tmp_path / "b"))
    code, first = run(path, checkpoint, tmp_path / "out")
    assert code == 1 and first["results"]["late"]["status"] == "missing"
    colors(tmp_path / "late")
    (tmp_path / "b" / "a.png").unlink()  # not read again
    capsys.readouterr()
    code, second = run(path, checkpoint, tmp_path / "out", "encoding.batch_size=1")
    err = capsys.readouterr().err
    assert code == 0 and second["results"]["late"]["status"] == "ok"
    assert second["results"]["pairs"] == first["results"]["pairs"]
    assert "[2/2] pairs: ok, kept from an earlier run (--redo measures again)" in err
    _, third = run(path, checkpoint, tmp_path / "out", "evaluate.pairs.ks=[2]")  # another setting
    assert next(iter(third["results"]["pairs"]["metrics"])) == "text_to_image_recall@2"
    assert third["results"]["late"] == second["results"]["late"]
    code, fourth = run(path, checkpoint, tmp_path / "out", "--only", "pairs", "--redo")
    assert fourth["results"]["late"] == third["results"]["late"]  # nothing is lost
    assert code == 0 and fourth["results"]["pairs"]["meta"]["unreadable"] == 1  # measured again


def test_metrics_have_intervals_and_the_csv_has_all_of_them(checkpoint: Path, tmp_path: Path) -> None:
    missing = colors(tmp_path / "a")
    missing["dataset"]["root"] = str(tmp_path / "gone")
    path = config(tmp_path, pairs=captions(tmp_path / "b"), gone=missing)
    _, report = run(path, checkpoint, tmp_path / "out")
    metrics, intervals = (report["results"]["pairs"][key] for key in ("metrics", "intervals"))
    lines = (tmp_path / "out" / "results.csv").read_text().splitlines()
    assert lines[0] == "evaluation,status,metric,value,low,high,chance"
    assert lines[-1] == "gone,missing,,,,,"
    for name, (low, high) in intervals.items():
        assert low <= metrics[name] <= high and 0.0 <= low <= high <= 100.0
        assert f"pairs,ok,{name},{metrics[name]},{low},{high},{metrics[f'{name}_chance']}" in lines


def test_another_config_keeps_the_first_and_going_back_measures_nothing_again(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = config(tmp_path, "one.yaml", colors=colors(tmp_path / "colors"))
    two = config(tmp_path, "two.yaml", pairs=captions(tmp_path / "pairs"))
    _, first = run(one, checkpoint, tmp_path / "out")
    _, other = run(two, checkpoint, tmp_path / "out")
    assert list(other["results"]) == ["pairs"]
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    for path in (
        "one.yaml",
        "./one.yaml",
        "../" + tmp_path.name + "/one.yaml",
    ):  # the same one, however typed
        _, again = run(path, checkpoint, tmp_path / "out")
        assert again["results"] == first["results"]
        assert "colors: ok, kept from an earlier run" in capsys.readouterr().err
    contents = {p.name: json.loads(p.read_text()) for p in (tmp_path / "out").glob("*.json")}
    assert sorted(list(content["results"]) for content in contents.values()) == [["colors"], ["pairs"]]
    assert all((tmp_path / "out" / name).with_suffix(".csv").is_file() for name in contents)
    assert list(contents["results.json"]["results"]) == ["colors"]  # of the last run


def test_a_retained_result_names_its_version(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path, colors=colors(tmp_path / "colors"))
    with monkeypatch.context() as patch:
        patch.setattr("hypvl.__version__", "0.0.1")
        patch.setattr("hypvl.training.provenance.git_state", lambda _: {"git_commit": "0123456789"})
        run(path, checkpoint, tmp_path / "out")
    _, report = run(path, checkpoint, tmp_path / "out")
    assert "colors: ok, kept from a run of hypvl 0.0.1 at 01234567 (--redo" in capsys.readouterr().err
    assert report["results"]["colors"]["provenance"]["hypvl"] == "0.0.1"
    assert report["provenance"]["hypvl"] != "0.0.1"


def test_the_model_is_what_counts_not_how_its_config_is_named(checkpoint: Path, tmp_path: Path) -> None:
    train = tmp_path / "train.yaml"
    train.write_text(torch.load(checkpoint, weights_only=True)["config"])
    path = config(tmp_path, colors=colors(tmp_path / "colors"))
    _, own = run(path, checkpoint, tmp_path / "out")
    _, named = run(path, checkpoint, tmp_path / "out", "--train-config", str(train))
    assert named["results"] == own["results"]
    other = yaml.safe_load(train.read_text())
    other["model"]["textual"]["activation"] = "quick_gelu"
    train.write_text(yaml.safe_dump(other))
    run(path, checkpoint, tmp_path / "out", "--train-config", str(train))
    assert len(list((tmp_path / "out").glob("results*.json"))) == 2


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (KeyError("https://me:secret@host/x"), "KeyError: 'https://***@host/x'"),
        (AssertionError("impossible"), "AssertionError: impossible"),
        (SystemExit(3), "SystemExit: 3"),
    ],
)
def test_an_evaluator_that_raises_anything_is_failed_and_the_rest_runs(
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
    reason: str,
) -> None:
    from hypvl.evaluation.zero_shot import ZeroShotClassification

    def slip(self: object, model: object, encoder: object) -> None:
        raise raised

    monkeypatch.setattr(ZeroShotClassification, "measure", slip)
    path = config(tmp_path, broken=colors(tmp_path / "a"), fine=captions(tmp_path / "b"))
    code, report = run(path, checkpoint, tmp_path / "out")
    err = capsys.readouterr().err
    assert code == 1
    assert report["results"]["fine"]["status"] == "ok"
    entry = report["results"]["broken"]
    assert (entry["status"], entry["metrics"], entry["reason"]) == ("failed", {}, reason)
    assert "Traceback" in err and "in slip" in err and "secret" not in err
    assert "1 of 2 evaluations have no result: broken." in err
    assert "broken,failed,,,,," in (tmp_path / "out" / "results.csv").read_text()


def test_the_folder_of_a_run_is_its_last_checkpoint(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path, colors=colors(tmp_path / "colors"))
    folder = tmp_path / "run"
    folder.mkdir()
    code, _ = run(path, folder, tmp_path / "out")
    assert code == 1 and "a folder with neither checkpoint_final.pth nor" in capsys.readouterr().err
    (folder / "checkpoint_final.pth").write_bytes(checkpoint.read_bytes())
    code, report = run(path, folder, tmp_path / "out")
    assert code == 0 and report["provenance"]["checkpoint"] == str(folder / "checkpoint_final.pth")


def test_results_lie_beside_the_checkpoint_by_default(checkpoint: Path, tmp_path: Path) -> None:
    path = config(tmp_path, colors=colors(tmp_path / "colors"))
    arguments = ["--config", path, "--checkpoint-path", str(checkpoint), "--device", "cpu"]
    assert run_main(main, arguments) == 0
    assert (checkpoint.parent / "results.json").is_file()
    assert run_main(main, [*arguments, "--output", str(tmp_path / "mine.json")]) == 0
    assert list(json.loads((tmp_path / "mine.json").read_text())["results"]) == ["colors"]


def test_a_file_that_is_something_else_is_left_alone(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path, colors=colors(tmp_path / "colors"))
    (tmp_path / "out").mkdir()
    for text in ("notes", "[]", "{}"):
        (tmp_path / "out" / "results.json").write_text(text)
        assert run_main(main, ["--config", path, "--checkpoint-path", str(checkpoint), "--output-dir",
                               str(tmp_path / "out"), "--device", "cpu"]) == 1  # fmt: skip
        assert "is not a results file" in capsys.readouterr().err
        assert (tmp_path / "out" / "results.json").read_text() == text


def test_only_some(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = colors(tmp_path / "a")
    missing["dataset"]["root"] = str(tmp_path / "gone")
    path = config(tmp_path, gone=missing, fine=captions(tmp_path / "c"), more=captions(tmp_path / "d"))
    code, report = run(path, checkpoint, tmp_path / "out", "--only", "more,fine")
    assert code == 0 and list(report["results"]) == ["fine", "more"]
    code, _ = run(path, checkpoint, tmp_path / "none", "--only", "fin")
    assert (
        code == 2 and "--only: 'fin' is not in" in (err := capsys.readouterr().err) and "closest: fine" in err
    )
    assert not (tmp_path / "none").exists()


def test_odd_names_of_files_end_nothing(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bytes that are no UTF-8, a terminal's escape codes and rich's markup, in paths and in names of images."""
    odd = tmp_path / os.fsdecode(b"\xff\x1b[2J") / "meru[/v2]"
    node = colors(odd / "colors")
    broken(odd / "colors" / "red" / os.fsdecode(b"broken\xe9.jpg"))
    odd_checkpoint = odd / "model[/v2].pth"  # a folder "model[" with "v2].pth" in it
    odd_checkpoint.parent.mkdir()
    odd_checkpoint.write_bytes(checkpoint.read_bytes())
    path = config(tmp_path, colors=node, fine=captions(tmp_path / "b"))
    code, report = run(path, odd_checkpoint, odd / "out")
    shown = capsys.readouterr()
    assert code == 0 and [entry["status"] for entry in report["results"].values()] == ["ok", "ok"]
    assert report["provenance"]["checkpoint"] == str(odd_checkpoint)
    assert report["results"]["colors"]["meta"]["unreadable"] == 1
    assert "v2].pth" in shown.out and "\\udcff\\x1b[2J/meru[/v2]/out/results.json" in shown.out
    assert "\x1b" not in shown.out + shown.err


def test_a_killed_data_worker_fails_one_evaluation(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hypvl.embedding import loading

    real, once = loading._Reader.__getitem__, tmp_path / "once"
    once.touch()

    def killed(self: loading._Reader, index: int) -> loading.Loaded:
        if once.exists():
            once.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, index)

    monkeypatch.setattr(loading._Reader, "__getitem__", killed)
    path = config(tmp_path, colors=colors(tmp_path / "a"), fine=captions(tmp_path / "b"))
    code, report = run(path, checkpoint, tmp_path / "out", "--num-workers", "1")
    assert code == 1 and not once.exists()
    assert {name: entry["status"] for name, entry in report["results"].items()} == {
        "colors": "failed",
        "fine": "ok",
    }
    assert re.search(
        r"a data worker has died \(.*\); .*use fewer workers", report["results"]["colors"]["reason"]
    )
    assert "Traceback" not in capsys.readouterr().err


def test_an_error_in_a_data_worker_is_its_last_line(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hypvl.embedding import loading

    def wrong(self: loading._Reader, index: int) -> loading.Loaded:
        raise ValueError("no such colour space")

    monkeypatch.setattr(loading._Reader, "__getitem__", wrong)
    path = config(tmp_path, colors=colors(tmp_path / "a"))
    _, report = run(path, checkpoint, tmp_path / "out", "--num-workers", "1")
    entry = report["results"]["colors"]
    assert entry["status"] == "failed"
    assert entry["reason"] == "ValueError: in a data worker: ValueError: no such colour space"


def test_no_download_fetches_nothing(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load(Path(config(tmp_path, digits=colors(tmp_path / "a"))).read_text())
    content["download"] = True
    content["evaluate"]["digits"]["dataset"] = {
        "_target_": f"{EVALUATION}.datasets.catalog.classification_set", "name": "mnist",
        "root": str(tmp_path / "gone"),
        "download": "${download}",
    }  # fmt: skip
    (tmp_path / "eval.yaml").write_text(yaml.safe_dump(content))
    code, report = run(str(tmp_path / "eval.yaml"), checkpoint, tmp_path / "out", "--no-download")
    assert code == 1 and report["results"]["digits"]["status"] == "missing"
    assert "download=true fetches it" in report["results"]["digits"]["reason"]
    assert not (tmp_path / "gone").exists()


def test_a_checkpoint_of_someone_else_needs_the_train_config(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    bare, train = tmp_path / "bare.pth", tmp_path / "train.yaml"
    torch.save({"model": content["model"]}, bare)
    train.write_text(content["config"])
    path = config(tmp_path, colors=colors(tmp_path / "colors"))
    code, _ = run(path, bare, tmp_path / "out")
    assert code == 2 and "--train-config" in capsys.readouterr().err
    code, report = run(path, bare, tmp_path / "out", "--train-config", str(train))
    assert code == 0 and report["provenance"]["train_config"] == str(train)
    _, own = run(path, checkpoint, tmp_path / "own")
    assert own["results"]["colors"]["items"] == report["results"]["colors"]["items"]


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--checkpoint-path", "gone.pth"], 1, "gone.pth: no such file"),
        (["--device", "tpu9"], 2, "--device: 'tpu9' cannot be used"),
        (["encoding.batchsize=3"], 2, "encoding.batch_size"),
        (["~evaluate.colors"], 2, "evaluate is empty"),
    ],
)
def test_bad_arguments_are_one_line_and_write_nothing(
    more: list[str],
    code: int,
    message: str,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = config(tmp_path, colors=colors(tmp_path / "colors"))
    arguments = ["--config", path, "--checkpoint-path", str(checkpoint), "--device", "cpu", "--output-dir",
                 str(tmp_path / "out"), *more]  # fmt: skip
    assert run_main(main, arguments) == code
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_training_config_is_refused(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = str(ROOT / "hypvl" / "models" / "zoo" / "meru_vit_s.json")
    assert run_main(main, ["--config", train, "--checkpoint-path", str(checkpoint)]) == 2
    assert "evaluate" in capsys.readouterr().err


def test_debug_shows_where_it_failed(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPVL_DEBUG", "1")
    missing = colors(tmp_path / "a")
    missing["dataset"]["root"] = str(tmp_path / "gone")
    run(config(tmp_path, gone=missing), checkpoint, tmp_path / "out")
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["classification", "retrieval"])
def test_published_configs_look_where_the_roots_say(
    kind: str,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # nothing lies here: everything is missing, by the default roots
    path = str(ROOT / "configs" / f"eval_zero_shot_{kind}.py")
    refused = ["--no-download"] if kind == "classification" else []
    code, report = run(path, checkpoint, tmp_path / "out", *refused)
    assert code == 1 and {r["status"] for r in report["results"].values()} == {"missing"}
    expected = {
        "classification": {
            "imagenet": "datasets/eval/imagenet/val",
            "cifar10": "datasets/eval/cifar-10-batches-py",
        },
        "retrieval": {
            "coco": "datasets/coco/annotations",
            "flickr30k": "datasets/flickr30k/dataset_flickr30k.json",
        },
    }[kind]
    for name, place in expected.items():
        assert place in report["results"][name]["reason"]
    root = "eval" if kind == "classification" else "coco"
    code, report = run(path, checkpoint, tmp_path / "out", *refused, f"roots.{root}=/elsewhere")
    assert "/elsewhere/" in next(iter(report["results"].values()))["reason"]
