"""The real readers of training data, each as one function: which samples of a shard are good, and which are bad."""

import dataclasses
import hashlib
from pathlib import Path

import torch
from torch import Tensor

from hypvl.data.loader import Loader
from hypvl.data.mappers import GenericMapper
from hypvl.data.order import order_of
from hypvl.data.sample import BadSample, PairDataset, Sample
from hypvl.data.shards import ImageTextShards
from hypvl.data.stream import Reader, WebDatasetStream
from hypvl.data.tokenizer import get_tokenizer
from hypvl.errors import DataError
from tests.fuzz.harness import FuzzFailure

_MOST = 1000  # items of one shard
_TOKENIZER = get_tokenizer()


@dataclasses.dataclass
class Read:
    """Samples by key without the name of the shard: digests of the good ones, reasons of the bad ones."""

    good: dict[str, str] = dataclasses.field(default_factory=dict)
    bad: dict[str, str] = dataclasses.field(default_factory=dict)


def crop(image: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A deterministic transform that costs nothing: 4 x 4 of the pixels."""
    rows, columns = (torch.linspace(0, size - 1, 4).long() for size in image.shape[1:])
    return image[:, rows][:, :, columns].clone()


def sample_digest(sample: Sample) -> str:
    """Of image and text; checks their kinds."""
    image, text = sample["image"], sample["text"]
    if image.dtype != torch.uint8 or image.shape != (3, 4, 4) or text.dtype != torch.int64 or text.ndim != 1:
        raise FuzzFailure(f"a sample of another form: {image.dtype} {image.shape}, {text.dtype} {text.shape}")
    return hashlib.sha256(image.numpy().tobytes() + text.numpy().tobytes()).hexdigest()[:16]


def read_rows(dataset: PairDataset) -> Read:
    """Every row once; then an epoch through the loader, which must count every bad row."""
    order = order_of(dataset, seed=0)
    read, size = Read(), len(dataset)
    for position in range(size):
        _, row = order.locate(position)
        try:
            sample = dataset.sample(row, order.generator(position, 0))
        except BadSample as error:
            read.bad[_short(error.key)] = error.reason
        else:
            read.good[_short(sample["key"])] = sample_digest(sample)
    with Loader(
        dataset, global_batch_size=1, rank=0, world_size=1, num_workers=0, seed=0, max_bad_fraction=1.0
    ) as loader:
        counted: set[str] = set()
        try:
            for _ in range(size):
                counted.update(_short(key) for key, _ in next(loader)["bad"])
        except DataError:
            if read.good:
                raise
            return read  # none is good: the loader says so
        if counted != set(read.bad) or loader.bad.good != size or loader.bad.bad < len(counted):
            raise FuzzFailure(f"the loader counted {counted}, bad are {set(read.bad)}")
    return read


def read_shards(path: Path) -> Read:
    """A TAR by :class:`ImageTextShards`."""
    beside = set(path.parent.iterdir())
    dataset = ImageTextShards([str(path)], mapper=GenericMapper(), image_transform=crop, tokenizer=_TOKENIZER)
    dataset.prepare()
    read = read_rows(dataset)
    new = {place.name for place in path.parent.iterdir() if place not in beside}
    if new - {f"{path.name}.hypvl-index"}:
        raise FuzzFailure(f"new files beside the shard: {new}")
    return read


def read_stream(path: Path) -> Read:
    """A TAR by :class:`WebDatasetStream`, once."""
    stream = WebDatasetStream(
        [str(path)], mapper=GenericMapper(), image_transform=crop, tokenizer=_TOKENIZER, samples_per_epoch=10,
        shuffle_window=1,
    )  # fmt: skip
    stream.prepare()
    read = Read()
    for number, item in enumerate(stream.read_stream(0, Reader(0, 1), 0)):
        if item.place != 1:  # the second pass
            break
        if item.bad is not None:
            read.bad[_short(item.bad[0])] = item.bad[1]
        elif item.sample is not None:
            read.good[_short(item.sample["key"])] = sample_digest(item.sample)
        if number > _MOST:
            raise FuzzFailure("a shard without end")
    return read


def _short(key: str) -> str:
    return key.partition("/")[2]
