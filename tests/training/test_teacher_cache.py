"""Features of a teacher that are written once: the same run as with the teacher itself, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loguru import logger
from omegaconf import DictConfig, OmegaConf

from hypvl.cli.cache_teacher import main
from hypvl.config import LazyCall as L
from hypvl.data.sample import Sample
from hypvl.errors import CheckpointError, ConfigError, DataError
from hypvl.losses.base import TEXT, Objective, View
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.proto_clip import ProtoCLIP
from hypvl.training.run import RunOptions, run_training
from hypvl.training.step import Precision
from hypvl.training.teacher_cache import CachedTeacher, StoredFeatures, cache_teacher, write_features
from hypvl.training.teachers import EMATeacher, FrozenTeacher
from tests.ranks import run_ranks
from tests.test_demo_recipes import CONFIGS, shard, tiny
from tests.training.test_run import Noise
from tests.training.test_teachers import Match
from tests.training.tiny import tiny_model

__all__ = ["shard"]  # a fixture
CPU = Precision.choose(False, torch.device("cpu"))


class Short(Noise):
    """Captions that the tiny models know; pixels are drawn anew each time."""

    fingerprint = "short"

    def sample(self, row: int, generator: np.random.Generator) -> Sample:
        image = super().sample(row, generator)["image"][:, :16, :16]
        return {"key": str(row), "image": image, "text": torch.tensor([1, 2 + row, 49])}


def config(shard: Path) -> DictConfig:
    cfg = tiny(CONFIGS / "train_clip_demo.py", shard)
    cfg.train.update(num_iterations=3, total_batch_size=8, root_samples=4, amp="fp32")
    cfg.train.init_checkpoint = None
    cfg.dataset, cfg.model = L(Short)(), L(tiny_model)(recipe="clip")
    terms = {"contrastive": L(Contrastive)(), "match": L(Match)(student="image", teacher="text@teacher")}
    cfg.train.objective = L(Objective)(terms=terms)
    teacher = L(FrozenTeacher)(model=L(tiny_model)(recipe="clip", seed=3))
    cfg.train = OmegaConf.merge(cfg.train, {"teachers": {"teacher": teacher}})
    return cfg


def losses(cfg: DictConfig, folder: Path) -> list[float]:
    run_training(cfg, RunOptions(output_dir=folder, log_period=1))
    logger.remove()
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if "loss" in record]


def written(folder: Path, **given: Any) -> list[Any]:
    """Progress of writing the text features of a tiny model."""
    arguments = {"views": [TEXT], "precision": CPU, "batch_size": 8, **given}
    model, dataset = arguments.pop("model", tiny_model("clip", seed=3)), arguments.pop("dataset", Short())
    return list(write_features(model, dataset, folder, **arguments))


def test_training_with_stored_features_is_training_with_the_teacher(tmp_path: Path, shard: Path) -> None:
    cfg = config(shard)
    cache_teacher(cfg, "teacher", tmp_path / "features", 8, 0)
    with_teacher = losses(cfg, tmp_path / "teacher")
    cfg.train.teachers.teacher = L(CachedTeacher)(folder=str(tmp_path / "features"))
    assert len(with_teacher) == 3
    assert losses(cfg, tmp_path / "stored") == pytest.approx(with_teacher, rel=1e-6)


def test_a_teacher_that_is_asked_between_steps_is_stored_too(tmp_path: Path, shard: Path) -> None:
    cfg = config(shard)
    prototypes = L(ProtoCLIP)(
        embed_dim=12, external="text@teacher", clusters=3, external_clusters=2, episode=8, hidden=4
    )
    cfg.train.objective = L(Objective)(terms={"contrastive": L(Contrastive)(), "prototypes": prototypes})
    cache_teacher(cfg, "teacher", tmp_path / "features", 8, 0)
    with_teacher = losses(cfg, tmp_path / "teacher")
    cfg.train.teachers.teacher = L(CachedTeacher)(folder=str(tmp_path / "features"))
    assert losses(cfg, tmp_path / "stored") == pytest.approx(with_teacher, rel=1e-6)


def test_every_row_has_its_own_feature(tmp_path: Path) -> None:
    written(tmp_path)
    rows = torch.tensor([23, 0, 7, 7])
    tokens = torch.stack([torch.tensor([1, 2 + row, 49]) for row in rows])
    expected = tiny_model("clip", seed=3).encode_text(tokens, stage="features")
    torch.testing.assert_close(StoredFeatures(tmp_path).encode_text(rows), expected)


def test_started_again_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hypvl.training.teacher_cache._ROWS_PER_SHARD", 8)
    first = write_features(
        tiny_model("clip", seed=3), Short(), tmp_path, views=[TEXT], batch_size=8, precision=CPU
    )
    assert tuple(next(first)) == (8, 24)
    first.close()
    with pytest.raises(
        DataError, match=r"holds no text features of row \d+ of the training set; run hypvl cache-teacher"
    ):
        StoredFeatures(tmp_path).encode_text(torch.arange(24))
    assert written(tmp_path) == [(16, 24), (24, 24)]
    assert written(tmp_path) == [(24, 24)]
    assert StoredFeatures(tmp_path).encode_text(torch.arange(24)).shape == (24, 12)


def _write_share(folder: str) -> None:
    written(Path(folder))


def test_two_processes_write_a_share_each(tmp_path: Path) -> None:
    run_ranks(2, _write_share, str(tmp_path / "two"))
    written(tmp_path / "one")
    one, two = (StoredFeatures(tmp_path / name).encode_text(torch.arange(24)) for name in ("one", "two"))
    torch.testing.assert_close(one, two)


def test_what_does_not_fit_is_refused(tmp_path: Path, shard: Path) -> None:
    written(tmp_path)
    with pytest.raises(CheckpointError, match="holds embeddings of another model"):
        written(tmp_path, model=tiny_model("clip", seed=4))
    with pytest.raises(DataError, match="holds features of other data than `dataset`"):
        written(tmp_path, dataset=Noise())
    with pytest.raises(DataError, match=r"holds features of other data .* \(fingerprint short, here noise\)"):
        CachedTeacher(tmp_path).check_data("noise")
    with pytest.raises(DataError, match="holds no image features"):
        StoredFeatures(tmp_path).encode_image(torch.arange(2))
    with pytest.raises(ValueError, match="have no geometry"):
        StoredFeatures(tmp_path).embed(torch.zeros(1, 12), modality="text")
    with pytest.raises(DataError, match="holds no embeddings"):
        CachedTeacher(tmp_path / "nothing")
    cfg = config(shard)
    cfg.train.teachers.teacher = L(EMATeacher)()
    with pytest.raises(ConfigError, match="is a EMATeacher; expected a FrozenTeacher"):
        cache_teacher(cfg, "teacher", tmp_path / "other", 8, 0)
    cfg.train.objective = L(Objective)(terms={"contrastive": L(Contrastive)()})
    with pytest.raises(ConfigError, match="asks 'teacher' for none; expected one view"):
        cache_teacher(cfg, "teacher", tmp_path / "other", 8, 0)
    assert not (tmp_path / "other").exists()


class Boxed(Short):
    """Captions, and two boxes of each sample."""

    def sample(self, row: int, generator: np.random.Generator) -> Sample:
        sample = super().sample(row, generator)
        boxes = {"box_text": sample["text"].expand(2, -1), "box_owner": torch.zeros(2, dtype=torch.int64)}
        return {**sample, **boxes}


def test_features_of_any_number_of_boxes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"text:box_text@student: .* any number of its rows .* \(box_owner\)"):
        written(tmp_path, dataset=Boxed(), views=[View("text", "box_text")])


def test_a_teacher_that_is_not_there_is_named(tmp_path: Path) -> None:
    command = ["--config", str(CONFIGS / "train_clip_demo.py"), "--output-dir", str(tmp_path / "out")]
    with pytest.raises(ConfigError, match=r"--teacher: got 'teacher'; expected one of train\.teachers: none"):
        main(command)


def test_a_teacher_of_other_tokens_is_refused(tmp_path: Path, shard: Path) -> None:
    """Its text encoder would read the ids of the student's tokenizer as other words."""
    cfg = config(shard)
    cfg.dataset = L(WithTokenizer)()
    for run in (
        lambda: run_training(cfg, RunOptions(output_dir=tmp_path / "run")),
        lambda: cache_teacher(cfg, "teacher", tmp_path / "features", 8, 0),
    ):
        cfg.model = L(tiny_model)(recipe="clip")
        with pytest.raises(ConfigError, match=r"(model|teacher\.model)\.textual\.vocab_size: got 50"):
            run()
    wide = L(tiny_model)(recipe="clip", vocab_size=400)
    cfg.model = wide
    with pytest.raises(ConfigError, match=r"train\.teachers\.teacher\.model\.textual\.vocab_size: got 50"):
        run_training(cfg, RunOptions(output_dir=tmp_path / "run"))
    logger.remove()
    assert not (tmp_path / "run").exists() and not (tmp_path / "features").exists()


class WithTokenizer(Short):
    """One whose tokenizer has more ids than the tiny models know."""

    class tokenizer:  # noqa: N801
        vocab_size = 400
