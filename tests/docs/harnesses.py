"""What the docs reach over the network, on this machine: tasks of mteb in memory, a Hugging Face hub, a scheduler.

``python -m tests.docs.harnesses ...`` is ``python -m hypvl.integrations.mteb ...`` after :func:`use_miniature_tasks`.
"""

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import Any

#: Names in the docs -> classes of tests/integrations/test_mteb.py.
TASKS = {"Flickr30kT2IRetrieval": "TextToImage", "CIFAR10ZeroShot": "ZeroShot", "STS12VisualSTS": "Sentences"}
_OPEN = contextlib.ExitStack()  # until the process ends
_SBATCH = """#!{python}
import argparse, os, subprocess
parser = argparse.ArgumentParser(allow_abbrev=False)
parser.add_argument("--array", required=True)
parser.add_argument("--gpus-per-task", type=int)
parser.add_argument("--wrap", required=True)
options = parser.parse_args()
first, last = map(int, options.array.split("-"))
for index in range(first, last + 1):
    array = {{"SLURM_ARRAY_TASK_ID": str(index), "SLURM_ARRAY_TASK_COUNT": str(last - first + 1),
             "SLURM_ARRAY_TASK_MIN": str(first), "SLURM_ARRAY_TASK_MAX": str(last)}}
    subprocess.run(["sh", "-c", options.wrap], env={{**os.environ, **array}}, check=True)
"""


def install_sbatch(folder: Path) -> None:
    """A program ``sbatch`` that runs the tasks of an array one after the other."""
    path = folder / "sbatch"
    path.write_text(_SBATCH.format(python=sys.executable), encoding="utf-8")
    path.chmod(0o755)


def use_miniature_tasks(folder: Path) -> None:
    """Let mteb find tasks on a miniature (of tests/integrations, in ``folder``) under the names of the docs."""
    import mteb

    from tests.integrations import test_mteb
    from tests.integrations.miniature import Miniature

    def get_tasks(tasks: list[str]) -> list[Any]:
        rows = test_mteb.rows(Miniature(folder))
        return [getattr(test_mteb, TASKS[name])().with_rows(rows) for name in tasks]

    class Benchmark:
        tasks = property(lambda _: get_tasks(list(TASKS)))

    mteb.get_tasks = get_tasks
    mteb.get_benchmark = {"MIEB(lite)": Benchmark()}.__getitem__


def use_fake_hub() -> None:
    """Uploads of this process go to a server of its own until the process ends."""
    from huggingface_hub import constants

    from tests.fake_hub import serve

    _, address = _OPEN.enter_context(serve())
    constants.ENDPOINT = address
    constants.HUGGINGFACE_CO_URL_TEMPLATE = address + "/{repo_id}/resolve/{revision}/{filename}"
    constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_XET = False, True
    constants.HF_HUB_CACHE = tempfile.mkdtemp()


if __name__ == "__main__":
    from hypvl.cli.common import run_main
    from hypvl.integrations.mteb import main

    use_miniature_tasks(Path("datasets/harness"))
    raise SystemExit(run_main(main))
