"""Runs cases of a group in a process of its own, within bounds: ``python -m tests.fuzz.child GROUP FIRST STEP``.

One JSON object a line for each case; the last one holds the sums and the growth of the memory.
"""

import importlib
import json
import resource
import sys
import tempfile
from pathlib import Path

from loguru import logger

from tests.fuzz.harness import Case, FuzzFailure, peak_memory, run_case

#: Group -> where its cases are made.
GROUPS = {
    "shards": "tests.fuzz.tars:shard_cases",
    "stream": "tests.fuzz.tars:stream_cases",
    "images": "tests.fuzz.images:image_cases",
    "captions": "tests.fuzz.captions:caption_cases",
    "tables": "tests.fuzz.tables:table_cases",
    "archives": "tests.fuzz.archives:archive_cases",
    "weights": "tests.fuzz.weights:weight_cases",
    "configs": "tests.fuzz.configs:config_cases",
    "servers": "tests.fuzz.servers:server_cases",
}
_WARM = 3  # cases before memory is measured
_HEADROOM = 3 << 30  # bytes of address space that a case may take on top


def cases_of(group: str) -> list[Case]:
    module, _, name = GROUPS[group].partition(":")
    return list(getattr(importlib.import_module(module), name)())


def main(group: str, first: int, step: int) -> None:
    logger.remove()
    failures: list[str] = []
    good = bad = refused = 0
    before = 0
    cases = cases_of(group)[first::step]
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(cases):
            if number == _WARM:
                before = peak_memory()
                used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (used + _HEADROOM, resource.RLIM_INFINITY))
            print(
                json.dumps({"case": case.name}), flush=True
            )  # the last one is to blame if this process dies
            try:
                outcome = run_case(case, Path(folder) / str(number))
            except FuzzFailure as error:
                failures.append(str(error))
                continue
            good, bad, refused = good + outcome.good, bad + outcome.bad, refused + outcome.refused
    growth = peak_memory() - before
    print(json.dumps({
        "cases": len(cases), "good": good, "bad": bad, "refused": refused, "growth": growth, "failures": failures,
    }))  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
