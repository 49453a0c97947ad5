"""Commands on models of other libraries, by ``--model``."""

import json
from pathlib import Path
from typing import Any

import pytest

from hypvl.cli import (
    evaluate,
    export_index,
    extract_embeddings,
    fit_standardization,
    image_traversals,
    rank_by_root,
)
from hypvl.cli.common import run_main
from hypvl.data.demo.build import DemoArguments, make_demo_data
from tests.cli.test_evaluate import captions, colors
from tests.evaluation.fakes import RED, image
from tests.evaluation.miniatures import winoground
from tests.models.foreign import tiny, tiny_onnx
from tests.models.foreign.test_open_clip import saved

ROOT = Path(__file__).resolve().parents[2]
ENCODING = {
    "_target_": "hypvl.embedding.encode.Encoding",
    "batch_size": 3,
    "num_workers": 0,
    "progress": False,
}


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A tiny model of each kind, by the name that commands take."""
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "open_clip").mkdir()
    saved("ViT", folder / "open_clip")
    named = {"open_clip": f"open_clip:local-dir:{folder / 'open_clip'}"}
    for family in HUGGINGFACE:
        getattr(tiny, family)(folder / family)
        named[family] = f"hf:{folder / family}"
    (folder / "onnx").mkdir()
    tiny_onnx.image_encoder(folder / "onnx" / "image.onnx")
    tiny_onnx.text_encoder(folder / "onnx" / "text.onnx")
    return named | {"onnx": f"onnx:{folder / 'onnx'}"}


HUGGINGFACE = ["clip", "siglip", "blip", "blip2"]
KINDS = ["open_clip", *HUGGINGFACE, "onnx"]


def suite(folder: Path) -> Path:
    """A config of two evaluations."""
    evaluations: dict[str, Any] = {
        "colors": colors(folder / "colors"),
        "captions": captions(folder / "captions"),
    }
    path = folder / "eval_tiny.json"
    path.write_text(json.dumps({"encoding": ENCODING, "evaluate": evaluations}))
    return path


def run(*args: object, command: Any = evaluate) -> int:
    return run_main(command.main, [str(arg) for arg in args])


@pytest.mark.parametrize("kind", KINDS)
def test_a_suite_and_what_it_says_of_the_model(
    kind: str,
    names: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    config = suite(tmp_path)
    assert run("--config", config, "--model", names[kind]) == 0, capsys.readouterr().err
    (file,) = Path("output").glob("*/results.json")  # a folder of the model's name
    assert file.parent.name.startswith(f"{names[kind].partition(':')[0]}_")
    content = json.loads(file.read_text())
    assert content["results"]["colors"]["metrics"]["top1_accuracy"] >= 0
    own = {"open_clip": "OpenClipTransform(size=16, ", "onnx": "Squeeze(size=16)"}.get(
        kind, "HuggingFaceTransform("
    )
    meta = content["results"]["captions"]["meta"]
    assert meta["image_transforms"][0].startswith(own)
    assert meta["resize"] == ("squeeze" if kind == "onnx" else "as the model says")
    origin = content["provenance"]
    assert origin["model"] == names[kind] and "checkpoint" not in origin
    about = origin["foreign"]
    assert about["library"] == ("transformers" if kind in HUGGINGFACE else kind) and about["version"]
    assert all(len(digest) == 64 for digest in about["files"].values())
    assert run("--config", config, "--model", names[kind]) == 0
    assert capsys.readouterr().err.count("kept from an earlier run") == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_published_suite_on_its_miniature(
    kind: str, names: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    winoground.make(tmp_path)
    config = ROOT / "configs" / "eval_winoground.py"
    more = (f"roots.winoground={tmp_path / 'winoground'}", "encoding.num_workers=0", "--output-dir", tmp_path)
    assert run("--config", config, "--model", names[kind], *more) == 0, capsys.readouterr().err
    result = json.loads((tmp_path / "results.json").read_text())["results"]["winoground"]
    assert result["status"] == "ok" and 0 <= result["metrics"]["group_score"] <= 100


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_demo_suite(
    kind: str, names: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_demo_data(tmp_path / "datasets" / "demo", DemoArguments(num_train=16, num_test=8))
    monkeypatch.chdir(tmp_path)
    config = ROOT / "configs" / "eval_demo.py"
    assert run("--config", config, "--model", names[kind], "--num-workers", 0, "--output", "demo.json") == 0
    results = json.loads(Path("demo.json").read_text())["results"]
    assert len(results) > 10 and {entry["status"] for entry in results.values()} == {"ok"}


@pytest.mark.parametrize("kind", ["open_clip", "clip", "onnx"])
def test_saved_embeddings_are_those_of_the_model_and_its_transform(
    kind: str, names: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, store = suite(tmp_path), tmp_path / "store"
    place = ("--config", config, "--output-dir", tmp_path / "a", "--save-embeddings", store)
    assert run(*place, "--model", names[kind]) == 0, capsys.readouterr().err
    groups = [json.loads(path.read_text()) for path in store.glob("image-*/group.json")]
    own = {"open_clip": {"OpenClipTransform"}, "clip": {"HuggingFaceTransform"}}
    transforms = {group["transform"].partition("(")[0] for group in groups}
    assert transforms == own.get(kind, {"ResizeCenterCrop", "Squeeze"})  # where it has none, the evaluators'
    other = next(name for key, name in names.items() if key != kind)
    assert run(*place, "--model", other) == 1
    assert "holds embeddings of another model" in capsys.readouterr().err
    index = ("--embeddings", store, "--modality", "image", "--output-dir", tmp_path / "index")
    index += ("--transform", groups[0]["transform"])
    assert run(*index, "--model", names[kind], command=export_index) == 0


def test_other_commands(names: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    for number, color in enumerate((RED, (0, 90, 40))):
        image(photos / f"{number}.png", color)
    model = ("--model", names["clip"])
    out = tmp_path / "embeddings"
    assert run("--image-dir", photos, "--output-dir", out, *model, command=extract_embeddings) == 0
    assert run("--input", photos, "--output-dir", tmp_path / "ranks", *model, command=rank_by_root) == 0
    report = json.loads((tmp_path / "ranks" / "photos.json").read_text())
    assert report["model"] == names["clip"] and report["foreign"]["architecture"] == "CLIPModel"
    pool = tmp_path / "pool.json"
    pool.write_text('["a red photo", "green"]')
    walk = (
        "--image-path",
        photos / "0.png",
        "--text-pool",
        pool,
        "--output-dir",
        tmp_path / "walks",
        "--steps",
        3,
    )
    assert run(*walk, *model, command=image_traversals) == 0
    means = tmp_path / "means.safetensors"
    config = suite(tmp_path)
    fit = ("--config", config, "--only", "captions", "--output", means)
    assert run(*fit, *model, command=fit_standardization) == 0, capsys.readouterr().err
    assert run("--config", config, *model, "--standardize", means, "--output-dir", tmp_path / "standard") == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--model", "openclip:x"), "no known prefix (closest: open_clip:)"),
        (("--model", "hf:nowhere"), "hf:nowhere: no such folder"),
        (
            ("--model", "hf:a/b", "--train-config", "meru_vit_b"),
            "--train-config: hf:a/b brings its own config",
        ),
        (("--model", "hf:a/b", "--weights", "ema"), "--weights: chooses among weights of a checkpoint"),
    ],
)
def test_bad_arguments_are_one_line(
    args: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--config", suite(tmp_path), "--output-dir", tmp_path / "out", *args) in (1, 2)
    err = capsys.readouterr().err
    assert message in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_home_folder_in_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    given = "onnx:~/a.onnx,~/b.onnx", "open_clip:local-dir:~/c", "open_clip:RN50/~/d.pt", "hf:a~/b"
    parsed = [evaluate.build_parser().parse_args(["--config", "x", "--model", name]).model for name in given]
    home = "/home/me"
    assert parsed[:2] == [f"onnx:{home}/a.onnx,{home}/b.onnx", f"open_clip:local-dir:{home}/c"]
    assert parsed[2:] == [f"open_clip:RN50/{home}/d.pt", "hf:a~/b"]


def test_a_checkpoint_or_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--config", "eval_demo")
    assert "one of the arguments --checkpoint-path --model is required" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("--config", "eval_demo", "--model", "hf:a/b", "--checkpoint-path", "x.pth")
    assert "not allowed with argument" in capsys.readouterr().err
