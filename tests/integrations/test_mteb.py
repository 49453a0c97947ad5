"""The real mteb on tasks in memory: its figures for a MERU are hypvl's own."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr

from hypvl.cli.common import run_main
from hypvl.embedding.encode import CachedEncoder
from hypvl.errors import ConfigError, UserError
from tests.integrations.conftest import OfRecipe
from tests.integrations.miniature import TEMPLATES, WORDS, Miniature, load, write_checkpoint
from tests.models.foreign import tiny

mteb = pytest.importorskip("mteb", reason="an extra")
datasets = pytest.importorskip("datasets", reason="comes with mteb")

from mteb.abstasks import AbsTaskImageTextPairClassification, AbsTaskRetrieval, AbsTaskSTS  # noqa: E402
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402
from mteb.abstasks.zeroshot_classification import AbsTaskZeroShotClassification  # noqa: E402

from hypvl.integrations import mteb_encoder  # noqa: E402
from hypvl.integrations.mteb import load_encoder, main, with_sides  # noqa: E402

pytestmark = pytest.mark.slow  # the package alone takes ten seconds to begin


def about(name: str, type: str, *, category: str, modalities: list[str], score: str) -> TaskMetadata:
    return TaskMetadata(
        name=name, type=type, category=category, modalities=modalities, main_score=score,
        description="A miniature.", reference=None, dataset={"path": "none", "revision": "none"},
        eval_splits=["test"], eval_langs=["eng-Latn"], date=("2026-01-01", "2026-01-02"), domains=[], task_subtypes=[],
        license="mit", annotations_creators="derived", dialect=[], sample_creation="created", bibtex_citation="",
    )  # fmt: skip


def rows(miniature: Miniature) -> list[dict[str, Any]]:
    """As in ``set.jsonl``: image, its captions, its class."""
    result: dict[str, dict[str, Any]] = {}
    data = miniature.retrieval_set()
    for caption, image in zip(data.captions, data.caption_image, strict=True):
        path = sorted((miniature.folder / "images").rglob("*.png"))[image]
        row = result.setdefault(
            str(path), {"image": Image.open(path), "captions": [], "label": int(path.parent.name)}
        )
        row["captions"].append(caption)
    return list(result.values())


class InMemory:
    """What the tasks have in common: nothing is downloaded."""

    rows: list[dict[str, Any]]

    def with_rows(self, rows: list[dict[str, Any]]) -> Any:
        self.rows = rows
        return self


class TextToImage(InMemory, AbsTaskRetrieval):
    metadata = about(
        "MiniTextToImage",
        "Any2AnyRetrieval",
        category="t2i",
        modalities=["image", "text"],
        score="hit_rate_at_1",
    )

    def load_data(self, **_: Any) -> None:
        captions = [(text, i) for i, row in enumerate(self.rows) for text in row["captions"]]
        split = RetrievalSplitData(
            queries=datasets.Dataset.from_dict(
                {"id": [f"q{n}" for n in range(len(captions))], "text": [text for text, _ in captions]}
            ),
            corpus=datasets.Dataset.from_dict(
                {"id": [f"d{i}" for i in range(len(self.rows))], "image": [row["image"] for row in self.rows]}
            ),
            relevant_docs={f"q{n}": {f"d{i}": 1} for n, (_, i) in enumerate(captions)},
            top_ranked=None,
        )
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


class ZeroShot(InMemory, AbsTaskZeroShotClassification):
    metadata = about(
        "MiniZeroShot",
        "ZeroShotClassification",
        category="i2t",
        modalities=["image", "text"],
        score="accuracy",
    )

    def load_data(self, **_: Any) -> None:
        columns = {name: [row[name] for row in self.rows] for name in ("image", "label")}
        self.dataset = datasets.DatasetDict({"test": datasets.Dataset.from_dict(columns)})
        self.data_loaded = True

    def get_candidate_labels(self) -> list[str]:
        return [TEMPLATES[0].format(c=word) for word in WORDS]


class Pairs(InMemory, AbsTaskImageTextPairClassification):
    """Two captions an image, the second of another one."""

    metadata = about(
        "MiniPairs", "Compositionality", category="i2t", modalities=["image", "text"], score="text_acc"
    )
    images_column_names = "image"
    texts_column_names = ("right", "wrong")

    def load_data(self, **_: Any) -> None:
        captions = [row["captions"][0] for row in self.rows]
        columns = {
            "image": [row["image"] for row in self.rows],
            "right": captions,
            "wrong": [*captions[7:], *captions[:7]],
        }
        self.dataset = datasets.DatasetDict({"test": datasets.Dataset.from_dict(columns)})
        self.data_loaded = True


class Sentences(InMemory, AbsTaskSTS):
    metadata = about("MiniSentences", "STS", category="t2t", modalities=["text"], score="cosine_spearman")

    def load_data(self, **_: Any) -> None:
        first, second = ([row["captions"][k] for row in self.rows] for k in (0, 1))
        columns = {"sentence1": first, "sentence2": [*second[5:], *second[:5]], "score": gold(len(first))}
        self.dataset = datasets.DatasetDict({"test": datasets.Dataset.from_dict(columns)})
        self.data_loaded = True


def gold(count: int) -> list[float]:
    return [float(i * 7 % 5) for i in range(count)]


def scores(task: Any, encoder: Any) -> dict[str, float]:
    done = mteb.evaluate(encoder, with_sides([task]), cache=None, show_progress_bar=False)
    result: dict[str, float] = done.task_results[0].scores["test"][0]
    return result


@pytest.fixture(scope="module")
def encoder(meru: Path) -> Any:
    return load_encoder(meru, device="cpu")


def test_retrieval_is_that_of_hypvl(encoder: Any, meru: Path, miniature: Miniature) -> None:
    result = scores(TextToImage().with_rows(rows(miniature)), encoder)
    own = miniature.retrieval(load(meru))
    for k in (1, 5):
        assert result[f"hit_rate_at_{k}"] == pytest.approx(own[f"text_to_image_recall@{k}"] / 100, abs=1e-4)


@pytest.mark.parametrize("recipe", ["meru_vit_s", "clip_vit_s", "euclip_vit_b"])
def test_zero_shot_is_that_of_hypvl(recipe: str, fitted: OfRecipe, miniature: Miniature) -> None:
    checkpoint = fitted(recipe)
    result = scores(ZeroShot().with_rows(rows(miniature)), load_encoder(checkpoint, device="cpu"))
    own = miniature.zero_shot(load(checkpoint), TEMPLATES[:1])
    assert result["accuracy"] == pytest.approx(own["top1_accuracy"] / 100)
    assert recipe == "euclip_vit_b" or 0.3 < result["accuracy"] < 1  # it learns too little in so few steps


def test_pairs_of_an_image_and_captions_are_ranked_as_by_the_model(
    encoder: Any, meru: Path, miniature: Miniature
) -> None:
    listed = rows(miniature)
    result = scores(Pairs().with_rows(listed), encoder)
    model = load(meru)
    images = encoder._wrapped.encode_images([row["image"] for row in listed], "embeddings")
    captions = [row["captions"][0] for row in listed]
    texts = CachedEncoder(model).encode_texts(captions)
    table = model.scores(images, texts, query_modality="image", key_modality="text")
    wrong = [(i + 7) % len(listed) for i in range(len(listed))]
    hits = [bool(table[i, i] > table[i, other]) for i, other in enumerate(wrong)]
    assert result["text_acc"] == pytest.approx(sum(hits) / len(hits)) and 0 < sum(hits) < len(hits)


def test_sentences_are_compared_by_the_models_distance(
    encoder: Any, meru: Path, miniature: Miniature
) -> None:
    task = Sentences().with_rows(rows(miniature))
    model = load(meru)
    result = scores(task, encoder)
    task.load_data()
    columns = task.dataset["test"]
    first, second = (CachedEncoder(model).encode_texts(list(columns[f"sentence{k}"])) for k in (1, 2))
    own = spearmanr(gold(len(first)), -model.geometry.distance(first, second).detach().numpy()).statistic
    assert result["cosine_spearman"] == pytest.approx(own, abs=1e-4)
    assert result["spearman"] == pytest.approx(own, abs=1e-4)  # by the encoder's own similarity
    with pytest.raises(UserError, match=r"MiniSentences: mteb does not say which inputs .*with_sides"):
        mteb.evaluate(encoder, Sentences().with_rows(rows(miniature)), cache=None, show_progress_bar=False)


def test_queries_are_not_compared_with_queries(encoder: Any) -> None:
    queries = encoder._wrapped.vectors(torch.randn(3, 64), side="query", modality="text", other="image")
    with pytest.raises(ValueError, match="both are queries, or both are keys"):
        encoder.similarity(queries, queries)


def test_a_sphere_has_no_sides(miniature: Miniature, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "clip.pth", "clip_vit_s")
    encoder = load_encoder(checkpoint, device="cpu")
    done = mteb.evaluate(encoder, Sentences().with_rows(rows(miniature)), cache=None, show_progress_bar=False)
    assert done.task_results and encoder.similarity(torch.eye(2), torch.eye(2)).tolist() == [[1, 0], [0, 1]]


def test_an_image_with_a_text_is_one_row(encoder: Any, miniature: Miniature) -> None:
    from mteb.types import PromptType

    batch = {"image": [rows(miniature)[0]["image"]], "text": ["a red thing"]}
    given = {"task_metadata": TextToImage.metadata, "hf_split": "test", "hf_subset": "default"}
    out = encoder.encode([batch, batch], prompt_type=PromptType.document, **given)
    alone = encoder.encode([{"text": ["a red thing"]}], prompt_type=PromptType.document, **given)
    assert out.shape == (2, alone.shape[1]) and torch.equal(out[0], out[1])
    assert not torch.allclose(out[0], alone[0])


def test_the_command_runs_tasks_by_name(
    meru: Path, miniature: Miniature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    task = TextToImage().with_rows(rows(miniature))
    monkeypatch.setattr(mteb, "get_tasks", lambda tasks: [task] if tasks == ["MiniTextToImage"] else [])
    command = ["--checkpoint-path", str(meru), "--device", "cpu", "--output-dir", str(tmp_path / "out")]
    assert run_main(main, [*command, "--tasks", "MiniTextToImage"]) == 0
    assert "MiniTextToImage: 0." in capsys.readouterr().out
    assert list((tmp_path / "out").rglob("MiniTextToImage.json"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MIEB(Multilingual)", "MIEB(lite)"])
def test_every_task_of_mieb_tells_its_sides_or_needs_none(name: str, encoder: Any) -> None:
    tasks = with_sides(mteb.get_benchmark(name).tasks)
    tasks += [part for task in tasks for part in getattr(task, "tasks", ())]
    untold = [task for task in tasks if not hasattr(task, "tasks") and not _tells_sides(task, encoder)]
    assert len(tasks) > 50 and not [task.metadata.name for task in untold]


def _tells_sides(task: Any, encoder: Any) -> bool:
    """mteb gives sides to what it searches, and to pairs if asked to; the encoder knows those of images and texts."""
    if isinstance(task, AbsTaskRetrieval) or getattr(task, "input1_prompt_type", None) is not None:
        return True
    if task.metadata.type in mteb_encoder.PROBES:
        return True
    try:
        encoder._side(task.metadata, "text", None)
    except UserError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--benchmark", "--tasks"])
def test_an_unknown_name_is_one_line(flag: str, meru: Path, tmp_path: Path, capsys: Any) -> None:
    command = ["--checkpoint-path", str(meru), "--output-dir", str(tmp_path / "out"), flag, "Flickr31k"]
    assert run_main(main, command) == 2
    assert f"error: {flag}: " in capsys.readouterr().err


def test_a_model_of_another_library(miniature: Miniature, tmp_path: Path) -> None:
    tiny.clip(tmp_path / "clip")
    encoder = load_encoder(f"hf:{tmp_path / 'clip'}", device="cpu")
    result = scores(TextToImage().with_rows(rows(miniature)), encoder)
    own = miniature.retrieval(encoder.model)
    assert result["hit_rate_at_5"] == pytest.approx(own["text_to_image_recall@5"] / 100, abs=1e-4)
    assert encoder.mteb_model_meta.name.startswith("hypvl/hf_") and encoder.mteb_model_meta.revision
    with pytest.raises(ConfigError, match="it brings its own, leave it out"):
        load_encoder(f"hf:{tmp_path / 'clip'}", "meru_vit_s")


def test_a_model_that_ranks_by_an_angle_is_refused(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "atmg.pth", "atmg_vit_s")
    with pytest.raises(UserError, match="an angle"):
        load_encoder(checkpoint, device="cpu")


def test_names_that_mteb_does_not_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--checkpoint-path", "x.pth", "--output-dir", str(tmp_path)]
    assert run_main(main, [*command, "--tasks", "NoSuchTask"]) == 2
    assert (
        capsys.readouterr().err.strip()
        == "error: --tasks: 'NoSuchTask' not found and no similar keys were found; "
        "expected names as mteb has them."
    )
    assert run_main(main, [*command, "--benchmark", "MIEB(lit)"]) == 2
    assert "Did you mean: MIEB(lite)?; expected" in capsys.readouterr().err


def test_without_the_package_the_command_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['mteb'] = None\n"
        "from hypvl.cli.common import run_main\n"
        "from hypvl.integrations.mteb import main\n"
        "raise SystemExit(run_main(main, ['--checkpoint-path', 'x', '--tasks', 'a', '--output-dir', 'x']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 1 and "error: mteb is not installed: pip install 'hypvl[mteb]'." in done.stderr
