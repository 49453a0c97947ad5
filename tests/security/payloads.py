"""Files that run code when they are read carelessly: the code leaves a mark."""

import gzip
import io
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Touch:
    """A pickle that touches a file when it is read as pickles are."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def pickled(mark: Path, protocol: int = 2) -> bytes:
    return pickle.dumps({"model": {}, "meta": Touch(mark)}, protocol=protocol)


def torch_file(mark: Path, *, legacy: bool = False, **content: Any) -> bytes:
    out = io.BytesIO()
    torch.save(
        {"model": {"a": torch.ones(1)}, **content, "x": Touch(mark)},
        out,
        _use_new_zipfile_serialization=not legacy,
    )
    return out.getvalue()


def npy(mark: Path) -> bytes:
    out = io.BytesIO()
    np.save(out, np.array([Touch(mark)], dtype=object), allow_pickle=True)
    return out.getvalue()


def npz(mark: Path) -> bytes:
    out = io.BytesIO()
    np.savez(out, a=np.array([Touch(mark)], dtype=object))
    return out.getvalue()


def script_archive(mark: Path) -> bytes:
    """What TorchScript's loader takes: code, and constants that are a pickle."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("m/data.pkl", pickled(mark))
        archive.writestr("m/constants.pkl", pickled(mark))
        archive.writestr("m/code/__torch__.py", "class M(Module):\n  def forward(self): pass\n")
        archive.writestr("m/version", "3\n")
    return out.getvalue()


def every_payload(mark: Path) -> Iterator[tuple[str, bytes]]:
    """(kind, content) of all of them."""
    for protocol in (0, 2, 4, 5):
        yield f"pickle {protocol}", pickled(mark, protocol)
    for legacy in (False, True):
        kind = "legacy" if legacy else "zip"
        yield f"torch {kind}", torch_file(mark, legacy=legacy)
        yield (
            f"optimizer {kind}",
            torch_file(
                mark, legacy=legacy, optimizer={"state": {0: Touch(mark)}}, format_version=1, iteration=3
            ),
        )
    yield "npy", npy(mark)
    yield "npz", npz(mark)
    yield "TorchScript", script_archive(mark)
    yield "gzip", gzip.compress(pickled(mark))
    yield "joblib", b"\x80\x04" + pickled(mark, 4)[2:]
