"""Damaged weights, arrays, pickles, indexes and stores."""

import functools
import io
import json
import pickle
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from hypvl.data.tar_index import load_index
from hypvl.embedding.store import EmbeddingStore
from hypvl.errors import UserError
from hypvl.evaluation import mean_removal
from hypvl.evaluation.results import _read_results
from hypvl.io.arrays import read_npy
from hypvl.models.checkpoint_io import load_checkpoint
from hypvl.negatives.convert import read_npy_items
from tests.fuzz.damage import KINDS, damaged
from tests.fuzz.harness import Case, FuzzFailure, Outcome, Sandbox

STATE = {"scorer.log_scale": torch.ones(()), "visual.weight": torch.arange(64.0).reshape(8, 8)}


@functools.cache
def whole(kind: str) -> bytes:
    out = io.BytesIO()
    if kind in ("pth", "legacy"):
        content = {"model": STATE, "iteration": 3, "config": "a: 1", "x": np.arange(3), "lr": np.float64(1)}
        torch.save(content, out, _use_new_zipfile_serialization=kind == "pth")
    elif kind == "means":
        torch.save(
            {"image_mean": torch.ones(4), "text_mean": torch.ones(4), "meta": {"format_version": 1}}, out
        )
    elif kind == "safetensors":
        return save(STATE, metadata={"a": "b"})
    elif kind == "npy":
        np.save(out, np.arange(99.0).reshape(9, 11))
    elif kind == "objects":
        np.save(out, np.array([{"a": ["b", 1, 2.5]}, {"c": np.arange(3)}], dtype=object), allow_pickle=True)
    elif kind == "results":
        return json.dumps(
            {"provenance": {}, "results": {"a": {"status": "ok", "metrics": {"x": 1.0}}}}
        ).encode()
    return out.getvalue()


READERS: dict[str, Callable[[Path], Any]] = {
    "pth": load_checkpoint,
    "legacy": load_checkpoint,
    "safetensors": load_checkpoint,
    "means": mean_removal.load,
    "npy": lambda path: read_array(path),
    "objects": read_npy_items,
    "results": _read_results,
}
SUFFIX = {"legacy": "pth", "means": "pt", "objects": "npy", "results": "json"}


def read_array(path: Path) -> None:
    """As members of shards are read: a ValueError is a bad sample there."""
    try:
        with path.open("rb") as file:
            read_npy(file)
    except ValueError as error:
        raise UserError(str(error)) from error


def strange() -> Iterator[tuple[str, str, bytes]]:
    """(what it is, kind of reader, content)."""

    def tensors(header: object, data: bytes = bytes(64)) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data

    one = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    for name, header in {
        "offsets behind the end": {"a": {**one, "data_offsets": [0, 1 << 60]}},
        "offsets the wrong way": {"a": {**one, "data_offsets": [16, 0]}},
        "overlapping": {"a": one, "b": one},
        "a huge shape": {"a": {**one, "shape": [1 << 62]}},
        "a negative shape": {"a": {**one, "shape": [-4]}},
        "no type": {"a": {**one, "dtype": "F9"}},
        "a list": [],
        "deep": b"[" * 100_000,
        "metadata of numbers": {"__metadata__": {"a": 1}, "a": one},
        "names": {"\0": one, "../a": {**one, "data_offsets": [16, 32]}},
        "many": {f"k{i}": {**one, "shape": [0], "data_offsets": [0, 0]} for i in range(20_000)},
    }.items():
        yield f"safetensors {name}", "safetensors", tensors(header)
    yield "safetensors a huge header", "safetensors", struct.pack("<Q", 1 << 62) + bytes(99)
    yield "safetensors no header", "safetensors", bytes(8)
    header = "{'descr': %s, 'fortran_order': False, 'shape': %s, }"
    for descr, shape in (
        ("'<f8'", "(10**9,)"),
        ("'<f8'", "(1000000000000,)"),
        ("'|O'", "(1,)"),
        ("'<U999999999'", "(9,)"),
        ("'|V0'", "(9999999999,)"),
        ("[('a', 'O')]", "(1,)"),
        ("'<f8'", "(-1,)"),
        ("'<f8'", "(1,)*40"),
        ("'<f8'", "()"),
        ("'" + "(" * 500 + "'", "(1,)"),
        ("__import__('os')", "(1,)"),
        ("'<f8'", "(0, 999999999999999999)"),
    ):
        text = (header % (descr, shape)).encode().ljust(117) + b"\n"
        content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(64)
        yield f"npy {descr[:20]} {shape}", "npy", content
        yield f"objects {descr[:20]} {shape}", "objects", content
    yield "npy a long header", "npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 31) + b"{" * 999
    yield "npy version 9", "npy", b"\x93NUMPY\x09\x00" + bytes(200)
    lists: list[Any] = []
    for _ in range(40):
        lists = [lists, lists]  # 2^40 values in a few hundred bytes
    yield "pickle bomb", "legacy", pickle.dumps({"model": lists}, protocol=2)
    yield "pickle of many marks", "legacy", b"\x80\x02" + b"(" * 100_000 + b"."
    yield "pickle of a huge text", "legacy", b"\x80\x02X" + struct.pack("<I", 1 << 31) + b"a."
    yield "pickle of a huge long", "legacy", b"\x80\x02\x8b" + struct.pack("<i", 1 << 30) + b"1."
    yield "pickle with itself in it", "legacy", b"\x80\x02]q\x00h\x00a."
    yield "pickle of a deep list", "legacy", b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    yield "pickle of a huge memo", "legacy", b"\x80\x02]r\xff\xff\xff\xff."
    for name, content in {
        "NaN": b'{"results": NaN}',
        "deep": b"[" * 300_000,
        "a list": b"[]",
        "no UTF-8": b"\xff",
        "empty": b"",
        "numbers": b'{"provenance": 1, "results": 2}',
        "wide": b'{"a": "' + b"x" * 20_000_000 + b'"}',
    }.items():
        yield f"results {name}", "results", content


@functools.cache
def all_strange() -> list[tuple[str, str, bytes]]:
    return list(strange())


def _read(box: Sandbox, kind: str, content: bytes) -> Outcome:
    path = box.inputs / f"file.{SUFFIX.get(kind, kind)}"
    path.write_bytes(content)
    READERS[kind](path)
    return Outcome(good=1)


def _strange(number: int) -> Callable[[Sandbox], Outcome]:
    def run(box: Sandbox) -> Outcome:
        _, kind, content = all_strange()[number]
        return _read(box, kind, content)

    return run


def _damaged(kind: str, damage: str, seed: int) -> Callable[[Sandbox], Outcome]:
    return lambda box: _read(
        box, kind, damaged(whole(kind), damage, random.Random(f"{kind}{damage}{seed}"))[0]
    )


def _index(damage: str, seed: int) -> Callable[[Sandbox], Outcome]:
    """An index that is damaged is not used, whatever it says."""

    def run(box: Sandbox) -> Outcome:
        from tests.fuzz.readers import read_shards
        from tests.fuzz.tars import plain_tar, pristine

        shard = box.inputs / "0000.tar"
        shard.write_bytes(plain_tar()[0])
        read_shards(shard)
        index = box.inputs / "0000.tar.hypvl-index"
        rng = random.Random(f"index{damage}{seed}")
        index.write_bytes(damaged(index.read_bytes(), damage, rng)[0])
        index.chmod(0o644)
        status = shard.stat()
        load_index(index, {"size": status.st_size, "mtime_ns": status.st_mtime_ns})
        read = read_shards(shard)
        if read.good != pristine():
            raise FuzzFailure(f"other samples: {read}")
        return Outcome(len(read.good), len(read.bad))

    return run


def _store(damage: str, seed: int) -> Callable[[Sandbox], Outcome]:
    def run(box: Sandbox) -> Outcome:
        from tests.embedding.test_store import open_store, pil_images, run as encode
        from tests.evaluation.modules import FakeModule

        model, folder = FakeModule(), box.out / "store"
        encode(model, pil_images(box.inputs / "set"), open_store(folder, model))
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        rng = random.Random(f"store{damage}{seed}")
        path = rng.choice(files)
        path.write_bytes(damaged(path.read_bytes(), damage, rng)[0])
        ids, rows = EmbeddingStore(folder).embeddings_of("image")
        if len(ids) != len(rows):
            raise FuzzFailure(f"{len(ids)} ids of {len(rows)} rows")
        return Outcome(good=len(rows))

    return run


def weight_cases() -> list[Case]:
    return [
        *(Case(f"weights: {name}", _strange(i)) for i, (name, _, _) in enumerate(all_strange())),
        *(
            Case(f"weights: {kind} {damage} {seed}", _damaged(kind, damage, seed))
            for seed in range(3)
            for kind in READERS
            for damage in KINDS
        ),
        *(
            Case(f"weights: index {damage} {seed}", _index(damage, seed))
            for seed in range(3)
            for damage in KINDS
        ),
        *(
            Case(f"weights: store {damage} {seed}", _store(damage, seed))
            for seed in range(3)
            for damage in KINDS
        ),
    ]
