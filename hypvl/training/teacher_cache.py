"""Features of a teacher, written once for a whole training set and read back by row instead of being encoded."""

import math
from collections.abc import Generator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from hypvl import distributed
from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.config import instantiate
from hypvl.data.loader import Loader
from hypvl.data.sample import check_dataset, prepare_dataset
from hypvl.embedding.identity import model_identity
from hypvl.embedding.store import EmbeddingStore, Place
from hypvl.embedding.store_files import Entry, read_json
from hypvl.errors import ConfigError, DataError
from hypvl.geometry.scorers import Modality
from hypvl.io.progress import terminal_bar
from hypvl.losses.base import View
from hypvl.losses.owners import owner_entry
from hypvl.models.dual_encoder import DualEncoder
from hypvl.training.config import TrainConfig, mapping_at
from hypvl.training.data_fit import check_data_fits, take_from_model
from hypvl.training.step import Precision, Rows, rows_of, to_device
from hypvl.training.teachers import FrozenTeacher, Teacher

_ID = "row://"  # before the number of a row of the training set
_ROWS_PER_SHARD = 4096
_MODALITIES: tuple[Modality, ...] = ("image", "text")


class Progress(NamedTuple):
    """How many rows of this process are written."""

    rows: int
    of: int


@torch.no_grad()
def write_features(
    model: DualEncoder,
    dataset: Any,
    folder: Path,
    *,
    views: list[View],
    batch_size: int,
    num_workers: int = 0,
    seed: int = 0,
    precision: Precision,
) -> Generator[Progress]:
    """Encode every row of a training set once and store its features; started again, it goes on.

    Each process (a collective) writes its share. Random augmentations and captions are drawn once, as in the first
    epoch of a run with this seed.

    Args:
        model: The teacher, on the device of ``precision``.
        dataset: What `dataset` of a config builds.
        folder: The store; one of the same teacher and data.
        views: What is encoded, one view per modality; their ``encoder`` is not used.
        batch_size: Rows that are encoded at once, of all processes; a multiple of their number.
        num_workers: Processes that read data, for each process.
        seed: Of augmentations.
        precision: Of the forward pass.

    Yields:
        The rows so far, once a shard.

    Raises:
        CheckpointError: when the folder holds features of another model.
        DataError: when it holds features of other data, or cannot be written, or when samples have any number of rows
            of a view (boxes).
    """
    store = EmbeddingStore(folder, model=model_identity(model), mode="write")
    source = {"dataset": dataset.fingerprint, "seed": seed, "batch_size": batch_size}
    groups = {view: store.group(view.modality, "features") for view in views}
    for group in groups.values():
        _check_source(group.folder, dataset.fingerprint)
    ranks, rank = distributed.world_size(), distributed.rank()
    steps = math.ceil(len(dataset) / batch_size)
    per_shard = max(1, _ROWS_PER_SHARD * ranks // batch_size)  # steps
    starts = range(0, steps, per_shard)
    names = [f"rank{rank}of{ranks}-{start:09d}-seed{seed}-batch{batch_size}" for start in starts]
    done = 0
    while done < len(names) and all((g.folder / f"{names[done]}.json").is_file() for g in groups.values()):
        done += 1
    done = min(distributed.gather_objects(done))
    own = batch_size // ranks
    if done == len(names):
        yield Progress(steps * own, steps * own)
        return
    model.eval()
    loader = Loader(
        dataset,
        global_batch_size=batch_size,
        rank=rank,
        world_size=ranks,
        num_workers=num_workers,
        seed=seed,
        consumed=starts[done] * batch_size,
    )
    with loader:
        batches = iter(loader)
        for name, start in zip(names[done:], starts[done:], strict=True):
            stop = min(start + per_shard, steps)
            with store.one_shard(name, source=source):
                for _ in range(start, stop):
                    batch = to_device(next(batches), precision.device)
                    for view, group in groups.items():
                        if owner_entry(view) in batch:
                            raise DataError(
                                f"view {view}: the data have any number of its rows for each sample "
                                f"({owner_entry(view)}), but one is stored for each; set boxes='one' in the data, or "
                                "let the teacher encode in training."
                            )
                        with precision.autocast():
                            features = _encode(model, view, rows_of(view, batch))
                        for row, feature in zip(batch["index"].tolist(), features.float().cpu(), strict=True):
                            group.add(Entry(f"{_ID}{row}", ""), feature)
            yield Progress(stop * own, steps * own)


def _encode(model: DualEncoder, view: View, rows: Rows) -> Tensor:
    if view.modality == "image":
        return model.encode_image(rows.values, stage="features")
    return model.encode_text(rows.values, stage="features", lengths=rows.lengths)


def _check_source(folder: Path, fingerprint: str) -> None:
    """DataError where a shard in the folder is of other data."""
    for file in sorted(folder.glob("*.json")):
        source = read_json(file, ()).get("source")
        if isinstance(source, dict) and source.get("dataset", fingerprint) != fingerprint:
            raise DataError(
                f"{folder}: holds features of other data than `dataset` of this config (fingerprint "
                f"{source['dataset']}, here {fingerprint}); name another folder, or restore the config."
            )


class StoredFeatures(nn.Module):
    """Gives the stored features of rows of the training set, as a model would encode them.

    Args:
        folder: What :func:`write_features` wrote.

    Raises:
        DataError: when it holds no features, or cannot be read.
    """

    reads = "index"  # the entry of the batch that says which rows
    embed_dim: int

    def __init__(self, folder: Path) -> None:
        super().__init__()
        store = EmbeddingStore(folder)
        self.folder = folder
        self._groups = {modality: store.group(modality, "features") for modality in _MODALITIES}
        self._places: dict[
            Modality, Tensor
        ] = {}  # (rows, 2) int64: shard and row in it, -1 where none is stored
        for modality, group in self._groups.items():
            group.refresh()
            if ids := group.ids():
                self._places[modality] = _places(folder, ids)
        if not self._places:
            raise DataError(f"{folder}: holds no features of a teacher; write them with hypvl cache-teacher.")
        first = next(iter(self._places))
        self.embed_dim = self._groups[first].rows([Place(0, 0)]).shape[1]

    def encode_image(self, rows: Tensor, stage: str = "trunk") -> Tensor:
        """Image features (B, D) of rows of the training set, (B,) int64."""
        return self._read("image", rows)

    def encode_text(self, rows: Tensor, stage: str = "trunk") -> Tensor:
        """Text features (B, D) of rows of the training set, (B,) int64."""
        return self._read("text", rows)

    def _read(self, modality: Modality, rows: Tensor) -> Tensor:
        table = self._places.get(modality)
        if table is None:
            raise DataError(
                f"{self.folder}: holds no {modality} features; write them with hypvl cache-teacher."
            )
        wanted = rows.cpu()
        known = wanted < len(table)
        places = table[torch.where(known, wanted, 0)]
        missing = wanted[~known | (places[:, 0] < 0)]
        if len(missing):
            raise DataError(
                f"{self.folder}: holds no {modality} features of row {int(missing[0])} of the training set; run "
                "hypvl cache-teacher again to its end."
            )
        features = self._groups[modality].rows([Place(shard, row) for shard, row in places.tolist()])
        return features.to(rows.device)

    def tower(self, modality: Modality) -> nn.Module:
        """What encodes a modality."""
        one_of("modality", modality, Modality)
        return self

    def project(self, trunk: Tensor, *, modality: Modality) -> Tensor:
        """The features themselves."""
        one_of("modality", modality, Modality)
        return trunk

    def embed(self, features: Tensor, *, modality: Modality) -> Tensor:
        """Raises ValueError: stored features have no geometry."""
        one_of("modality", modality, Modality)
        raise ValueError(
            f"{self.folder}: stored features of a teacher have no geometry, and this loss compares embeddings; name "
            "the teacher's model itself (FrozenTeacher), or take a loss that compares features."
        )

    def prototypes(self, modality: Modality) -> None:
        """None: there are no prototypes."""
        one_of("modality", modality, Modality)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is compiled."""


def _places(folder: Path, ids: list[list[str]]) -> Tensor:
    """Shard and row of each row of the training set; the first of several wins."""
    numbers = [
        [int(name.removeprefix(_ID)) if name.removeprefix(_ID).isdecimal() else -1 for name in shard]
        for shard in ids
    ]
    most = max((max(shard, default=-1) for shard in numbers), default=-1)
    if most < 0:
        raise DataError(
            f"{folder}: holds embeddings of images or texts, not of rows of a training set; write features of a "
            "teacher with hypvl cache-teacher."
        )
    table = np.full((most + 1, 2), -1)
    for shard in reversed(range(len(numbers))):
        rows = np.array(
            numbers[shard][::-1]
        )  # where a row is repeated, NumPy keeps the last value: its first place
        inside = np.arange(len(rows))[::-1]
        table[rows[rows >= 0]] = np.stack([np.full_like(inside, shard), inside], axis=1)[rows >= 0]
    return torch.from_numpy(table)


@configurable("train")
class CachedTeacher(Teacher):
    """Features of a teacher that ``hypvl cache-teacher`` wrote: it costs no forward pass.

    Args:
        folder: What that command wrote, for the same `dataset` config: augmentations are drawn once.

    Raises:
        DataError: when the folder holds no features, or those of other data.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.saved = False
        self.encoder = StoredFeatures(Path(folder))

    def check_data(self, fingerprint: str) -> None:
        """DataError for features of other data."""
        for modality in _MODALITIES:
            for folder in Path(str(self.encoder.folder)).glob(f"{modality}-features-*"):
                _check_source(folder, fingerprint)


def cache_teacher(cfg: DictConfig, name: str, folder: Path, batch_size: int, num_workers: int) -> None:
    """Write the features of ``train.teachers.<name>`` of a training config: those that its objective asks for.

    Called once per process.

    Raises:
        ConfigError: when the objective asks for none, or the teacher is not a frozen model.
    """
    settings = TrainConfig.read(mapping_at(cfg, "train"))
    device = distributed.device()
    if batch_size % distributed.world_size():
        raise ConfigError(
            f"--batch-size: got {batch_size} for {distributed.world_size()} processes; expected a multiple of it."
        )
    asked = instantiate(settings.objective).views
    views = sorted((view for view in asked if view.encoder == name), key=str)
    if not views or len({view.modality for view in views}) < len(views):
        listed = ", ".join(map(str, views)) or "none"
        raise ConfigError(
            f"--teacher: train.objective asks {name!r} for {listed}; expected one view of a modality, since a row "
            "of the training set has one stored feature of each."
        )
    teacher = instantiate(settings.teachers[name])
    if not isinstance(teacher, FrozenTeacher):
        raise ConfigError(
            f"train.teachers.{name}: is a {type(teacher).__name__}; expected a FrozenTeacher, whose features stay the "
            "same."
        )
    dataset = instantiate(cfg.dataset)
    take_from_model(teacher.encoder, dataset)
    check_data_fits(
        teacher.encoder,
        dataset,
        name=f"train.teachers.{name}.model",
        modalities={view.modality for view in views},
    )
    check_dataset(dataset)
    distributed.from_main(lambda: prepare_dataset(dataset))
    label = f"features of {name}"
    with terminal_bar(label, shown=distributed.is_main()) as move_bar:
        for progress in write_features(
            teacher.encoder.to(device), dataset, folder, views=views, batch_size=batch_size,
            num_workers=num_workers, seed=settings.seed, precision=Precision.choose(settings.amp, device),
        ):  # fmt: skip
            move_bar(*progress)
