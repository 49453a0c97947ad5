"""Files that are pipes or devices, which may have no end or never answer, are refused where a file is read."""

import ast
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hypvl.config import LazyConfig
from hypvl.data.shards import shard_index
from hypvl.data.storage import FileHandles, open_source
from hypvl.data.tar_index import load_index
from hypvl.data.text_lines import TextLines
from hypvl.embedding import store_files
from hypvl.errors import UserError
from hypvl.io.archives import unpack, zip_damage
from hypvl.io.files import file_digest
from hypvl.io.json_text import read_object
from hypvl.models.hub import from_pretrained
from hypvl.models.pretrained import list_pretrained
from hypvl.negatives.convert import read_npy_items
from hypvl.report.summary import read_file
from hypvl.training.run_status import run_status
from tests.security.test_calls import trees

READERS: dict[str, Callable[[Path], Any]] = {
    "a.yaml": LazyConfig.load,
    "zoo.json": lambda path: list_pretrained(zoo=path),
    "store.json": lambda path: store_files.read_json(path, ["a"]),
    "object.json": lambda path: read_object(path, expected="x"),
    "results.json": read_file,
    "heartbeat.json": lambda path: run_status(path.parent),
    "last_checkpoint.txt": lambda path: run_status(path.parent),
    "checkpoint_0000005.pth": lambda path: run_status(path.parent),
    "model.pth": from_pretrained,
    "items.npy": read_npy_items,
    "shard.tar": lambda path: shard_index(open_source(str(path), FileHandles())),
    "shard.index": lambda path: load_index(path, {"size": 1}),
    "a.tar": lambda path: unpack(path, path.parent / "out", kind="tar"),
    "a.zip": lambda path: unpack(path, path.parent / "out", kind="zip"),
    "a.gz": lambda path: unpack(path, path.parent / "out", kind="gz"),
    "damage.zip": zip_damage,
    "captions.txt": lambda path: TextLines(path, image_transform=None, tokenizer=None)._index,
    "digest": lambda path: file_digest(path, "sha256"),
}
#: Why a call does not wait for a pipe or read without an end -> (file, call) -> how often. Read with ``read_regular``
#: or ``open_regular`` (hypvl/io/files.py) instead of adding to it.
KNOWN: dict[str, dict[tuple[str, str], int]] = {
    "written by this process before": {
        ("cli/chaos.py", "(folder / METRICS_NAME).read_bytes"): 1,
        ("cli/demo.py", "(folder / evaluate.RESULTS).read_text"): 1,
        ("cli/killed_runs.py", "(self.folder / 'heartbeat.json').read_bytes"): 1,
        ("cli/killed_runs.py", "(self.folder / 'metrics.jsonl').read_bytes"): 1,
        ("data/gather/run.py", "(folder / TABLES / f'{name}.tsv').read_bytes"): 1,
        ("io/files.py", "part.open"): 1,
        ("io/tensors.py", "path.open"): 1,
        ("launch.py", "report.read_bytes"): 1,
        ("negatives/writer.py", "place.read_bytes"): 1,
        ("units/unit.py", "path.open"): 1,
        ("io/remote.py", "part.open"): 1,
        ("io/remote.py", "_mark(part).read_bytes"): 1,
        ("datasets/catalog/fetching.py", "arrived.read_bytes"): 1,
        ("models/pretrained.py", "file.open"): 1,
    },
    "is_file() before": {
        ("cli/compared.py", "config.read_text"): 1,
        ("cli/compared.py", "path.read_text"): 1,
        ("cli/demo.py", "saved.read_text"): 1,
        ("data/demo/build.py", "path.read_text"): 1,
        ("encoders/open_clip_configs.py", "(folder / CONFIG_FILE).read_text"): 1,
        ("evaluation/results.py", "path.read_bytes"): 1,
        ("datasets/classification/original_files.py", "np.fromfile"): 1,
        ("datasets/classification/original_files.py", "np.memmap"): 1,
        ("datasets/classification/original_files.py", "path.open"): 1,
        ("datasets/text/pairs.py", "path.open"): 1,
        ("models/checkpoint_io.py", "path.open"): 1,
        ("models/checkpoint_io.py", "beside.read_text"): 1,
        ("report/html/run_files.py", "path.read_text"): 2,
        ("training/hooks/sinks.py", "stored.read_text"): 1,
    },
    "part of hypvl or of an installed package": {
        ("cli/docs.py", "found[name].read_text"): 1,
        ("cli/docs.py", "file.read_text"): 1,
        ("cli/doctor.py", "path.read_text"): 1,
        ("cli/registry.py", "path.read_text"): 1,
        ("config/reader.py", "RENAMES.read_bytes"): 1,
        ("config/recipes.py", "file.read_bytes"): 1,
        ("config/targets.py", "LIST.read_text"): 1,
        ("data/tokenizer.py", "path.read_bytes"): 1,
        ("datasets/composition/aro.py", "file.read_text"): 1,
        ("models/hub.py", "(_zoo() / f'{name}.json').read_text"): 1,
    },
    "code, which is trusted": {
        ("config/pyfile.py", "path.read_bytes"): 1,
        ("encoders/image_hub.py", "(folder / 'hubconf.py').read_bytes"): 1,
    },
    "of the system": {
        ("io/processes.py", "Path(f'/proc/{pid}/stat').read_text"): 1,
        ("io/processes.py", "Path('/proc/self/io').read_text"): 1,
        ("training/hooks/memory.py", "_STATUS.read_text"): 1,
        ("units/claims.py", "Path('/proc/sys/kernel/random/boot_id').read_text"): 1,
    },
    "a member, or an archive that was found to be a file": {
        ("io/archives.py", "archive.open"): 2,
        ("io/archives.py", "opened.open"): 1,
    },
    "an address": {
        ("io/http.py", "opener.open"): 1,
    },
    "the records of the run itself": {
        ("training/hooks/sinks.py", "path.read_bytes"): 1,
        ("training/hooks/sinks.py", "self._path.read_bytes"): 2,
    },
    "its index was made of it before": {
        ("data/text_lines.py", "np.memmap"): 1,
    },
}


@pytest.fixture
def limit() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise AssertionError("still waiting after 20 seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("limit")
@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("name", READERS)
def test_no_reader_waits_for_a_pipe_or_reads_a_device(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    try:
        result = READERS[name](path)
    except (UserError, OSError) as error:
        assert "\n" not in str(error)
    else:  # taken for one that is not there, or damaged
        assert result is None or isinstance(result, str | dict)


def test_every_other_way_to_read_a_file_is_known() -> None:
    found: Counter[tuple[str, str]] = Counter()
    for place, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _reads(node):
                found[place, ast.unparse(node.func)] += 1
    assert found == {key: count for calls in KNOWN.values() for key, count in calls.items()}


def _reads(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    last = name.rpartition(".")[2]
    if last in ("read_text", "read_bytes", "fromfile", "memmap"):
        return (
            "." in name and "files(" not in name
        )  # hypvl.datasets.files has one, and what comes with the package
    if last != "open" or name in (
        "os.open",
        "gzip.open",
        "bz2.open",
        "lzma.open",
        "tarfile.open",
        "Image.open",
    ):
        return False
    modes = [
        *call.args[name == "open" : 1 + (name == "open")],
        *(k.value for k in call.keywords if k.arg == "mode"),
    ]
    mode = modes[0].value if modes and isinstance(modes[0], ast.Constant) else "r"
    return not set(str(mode)) & set("wax")
