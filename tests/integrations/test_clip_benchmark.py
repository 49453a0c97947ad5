"""The real CLIP_benchmark on a miniature: its figures for a MERU are hypvl's own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hypvl.cli.common import run_main
from hypvl.data.transforms import ResizeCenterCrop
from hypvl.integrations.clip_benchmark import accuracy, load_model, main
from hypvl.models.dual_encoder import DualEncoder
from tests.integrations.conftest import OfRecipe
from tests.integrations.miniature import TEMPLATES, Miniature, load, write_checkpoint

pytest.importorskip("clip_benchmark", reason="an extra")


def run(checkpoint: Path, miniature: Miniature, task: str, output: Path, *more: str) -> dict[str, Any]:
    data = {"zeroshot_retrieval": "captions", "zeroshot_classification": "classes"}[task]
    command = [
        "eval", "--pretrained", str(checkpoint), "--dataset", f"wds/{data}", "--task", task, "--quiet",
        "--dataset_root", str(miniature.folder / data), "--output", str(output), "--num_workers", "0", *more,
    ]  # fmt: skip
    assert run_main(main, command) == 0
    report: dict[str, Any] = json.loads(output.read_text())
    return report


def expected_recalls(metrics: dict[str, float]) -> dict[str, float]:
    names = {"image_retrieval": "text_to_image", "text_retrieval": "image_to_text"}
    return {
        f"{theirs}_recall@{k}": metrics[f"{ours}_recall@{k}"] / 100
        for theirs, ours in names.items()
        for k in (1, 5)
    }


@pytest.mark.parametrize(
    "recipe",
    ["meru_vit_s", *(pytest.param(name, marks=pytest.mark.slow) for name in ("euclip_vit_b", "clip_vit_s"))],
)
def test_retrieval_is_that_of_hypvl(
    recipe: str, fitted: OfRecipe, miniature: Miniature, tmp_path: Path
) -> None:
    checkpoint = fitted(recipe)
    report = run(checkpoint, miniature, "zeroshot_retrieval", tmp_path / "out.json", "--recall_k", "1", "5")
    assert report["metrics"] == pytest.approx(expected_recalls(miniature.retrieval(load(checkpoint))))
    assert 0.05 < report["metrics"]["image_retrieval_recall@1"] < 1
    assert report["model"] == "hypvl" and report["pretrained"] == str(checkpoint)


def classification(metrics: dict[str, float]) -> dict[str, float]:
    return {
        "acc1": metrics["top1_accuracy"] / 100,
        "mean_per_class_recall": metrics["mean_per_class_accuracy"] / 100,
    }


@pytest.mark.parametrize("recipe", ["meru_vit_s", pytest.param("euclip_vit_b", marks=pytest.mark.slow)])
def test_zero_shot_with_several_prompts_is_that_of_hypvl(
    recipe: str, fitted: OfRecipe, miniature: Miniature, tmp_path: Path
) -> None:
    checkpoint = fitted(recipe)
    report = run(checkpoint, miniature, "zeroshot_classification", tmp_path / "out.json")
    model = load(checkpoint)
    result = {name: report["metrics"][name] for name in ("acc1", "mean_per_class_recall")}
    assert recipe == "euclip_vit_b" or 0.3 < result["acc1"] < 1  # it learns too little in so few steps
    assert result == pytest.approx(classification(miniature.zero_shot(model, TEMPLATES)))


def test_a_model_that_ranks_by_an_angle_is_refused(miniature: Miniature, tmp_path: Path, capsys: Any) -> None:
    checkpoint = write_checkpoint(tmp_path / "model.pth", "atmg_vit_s")
    command = ["eval", "--pretrained", str(checkpoint), "--dataset", "wds/classes", "--quiet"]
    assert run_main(main, [*command, "--dataset_root", str(miniature.folder / "classes")]) == 1
    assert "text to image: this model's score, an angle" in capsys.readouterr().err


def test_the_config_may_be_named(meru: Path, miniature: Miniature, tmp_path: Path, capsys: Any) -> None:
    """``--model`` is the config it was trained with; one that does not fit is one line."""
    command = [
        "eval",
        "--pretrained",
        str(meru),
        "--model",
        "meru_vit_s",
        "--dataset",
        "wds/classes",
        "--quiet",
    ]
    command += ["--dataset_root", str(miniature.folder / "classes"), "--output", str(tmp_path / "x.json")]
    assert run_main(main, command) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(f"error: {meru}: ")
    assert run_main(main, ["eval", "--pretrained", "nowhere.pth", "--dataset", "wds/classes", "--quiet"]) == 2
    assert (
        "nowhere.pth: no such file; expected a checkpoint, a run's folder, or a name such as open_clip:..."
        in capsys.readouterr().err
    )
    capsys.readouterr()
    assert run_main(main, ["eval", "--pretrained", str(meru), "--dataset", "nosuch", "--quiet"]) == 2
    assert capsys.readouterr().err.strip() == "error: CLIP_benchmark: Unsupported dataset: nosuch."
    assert run_main(main, ["eval", "--pretrained", str(meru), "--dataset", "dummy", "--bound", "-3"]) == 2
    assert "error: bound: got -3" in capsys.readouterr().err
    assert run_main(main, ["eval", "--pretrained", str(meru), "--save_clf", "x.pt"]) == 2
    assert "--save_clf: a class is scored by all of its prompts" in capsys.readouterr().err


def test_captions_are_chosen_as_by_the_model(meru: Path, miniature: Miniature) -> None:
    """Winoground's and SugarCrepe's task: two images and two captions; every direction counts."""
    from clip_benchmark.metrics import image_caption_selection

    wrapped, _, tokenizer = load_model("hypvl", str(meru))
    model, data = load(meru), miniature.retrieval_set()
    fit = ResizeCenterCrop.of(model)
    images = torch.stack([fit(data.images[i]) for i in range(len(data.images))])
    captions = [data.captions[list(data.caption_image).index(i)] for i in range(len(images))]
    quads = [(i, (i + 7) % len(images)) for i in range(len(images))]
    batches = [(images[list(pair)][None], [[captions[i] for i in pair]]) for pair in quads]
    result = image_caption_selection.evaluate(wrapped, batches, tokenizer, device="cpu", amp=False)
    with torch.no_grad():
        texts = model.encode_text(tokenizer(captions))
        table = model.scores(model.encode_image(images), texts, query_modality="image", key_modality="text")
    best = [table[list(pair)][:, list(pair)] for pair in quads]  # images, captions
    right = torch.tensor([0, 1])
    own = {
        "text_acc": sum(torch.equal(block.argmax(1), right) for block in best) / len(best),
        "image_acc": sum(torch.equal(block.argmax(0), right) for block in best) / len(best),
    }
    assert {name: result[name] for name in own} == pytest.approx(own) and 0 < own["text_acc"] < 1


def test_probes_get_features(meru: Path) -> None:
    from clip_benchmark.metrics import linear_probe

    from hypvl.integrations.clip_benchmark import register

    register()
    wrapped, _, _ = load_model("hypvl", str(meru))
    model: DualEncoder = load(meru)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        rows = linear_probe.Featurizer(wrapped, True)(images)
        features = torch.nn.functional.normalize(model.encode_image(images, "features"), dim=-1)
    assert torch.allclose(rows, features, atol=1e-6)


def test_models_of_other_types_are_measured_by_their_own_functions() -> None:
    from clip_benchmark.metrics import zeroshot_classification as zero_shot

    from hypvl.integrations.clip_benchmark import register

    register()
    register()  # twice does nothing more

    class Cosine(torch.nn.Module):
        def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[3.0, 4.0]])

    classifier = zero_shot.zero_shot_classifier(
        Cosine(), lambda texts: torch.zeros(len(texts), 1), ["a", "b"], ["{c}"], "cpu", amp=False
    )
    assert torch.allclose(classifier, torch.tensor([[0.6, 0.6], [0.8, 0.8]]))


def test_accuracy_is_a_share() -> None:
    scores = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]])
    assert accuracy(scores, torch.tensor([1, 1, 0]), topk=(1, 2)) == pytest.approx([1 / 3, 2 / 3])


def test_without_the_package_the_command_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['clip_benchmark'] = None\n"
        "from hypvl.cli.common import run_main\n"
        "from hypvl.integrations.clip_benchmark import main\n"
        "raise SystemExit(run_main(main, ['eval']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "pip install 'hypvl[clip-benchmark]'" in done.stderr
    assert done.stderr.count("\n") == 1
