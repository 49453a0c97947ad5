"""Where a run came from: config, version, commit, packages, data, seeds."""

import importlib.metadata
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import hypvl
from hypvl import distributed
from hypvl.io.redact import redact_command
from hypvl.launch import torchrun_layout

PACKAGES = ("torch", "torchvision", "timm", "numpy", "omegaconf", "hydra-core", "webdataset", "ftfy", "regex")


def provenance(*, seed: int, data_fingerprint: str, config_text: str) -> dict[str, Any]:
    """Everything needed to say what made a result; JSON-serialisable, without passwords and tokens of addresses."""
    return {
        **code_version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": package_versions(),
        "device": device_name(),
        "world_size": distributed.world_size(),
        "command": redact_command(sys.argv),
        "torchrun": torchrun_layout(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "data_fingerprint": data_fingerprint,
        "config": config_text,
    }


def code_version() -> dict[str, Any]:
    """Version of hypvl, and the state of its checkout."""
    return {"hypvl": hypvl.__version__, **git_state(Path(hypvl.__file__).resolve().parent)}


def git_state(folder: Path) -> dict[str, Any]:
    """Commit and whether the tree is dirty; None where ``folder`` is not a git checkout or git is absent."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        dirty = bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return {"git_commit": None, "git_dirty": None}
    return {"git_commit": commit, "git_dirty": dirty}


def package_versions() -> dict[str, str | None]:
    """Installed versions of the packages that decide numbers; None = not installed."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def device_name() -> str:
    """The GPU's name, or the processor's."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return platform.processor() or platform.machine()


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
