"""What loading a foreign model gives: the model, and what it is for the provenance of results."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from hypvl.errors import CheckpointError
from hypvl.io.files import file_digest
from hypvl.models.dual_encoder import DualEncoder


@dataclass(frozen=True)
class ForeignModel:
    """A model of another library.

    Attributes:
        model: It satisfies the ``EvaluableModel`` of ``hypvl/embedding/protocol.py``.
        about: ``library, version, id, revision, files`` (name -> SHA-256), for provenance.
        library_model: The library's own object, whose parts ``model`` runs, where it has more than embeddings need (a
            matching head); None = nothing more.
    """

    model: DualEncoder
    about: dict[str, Any]
    library_model: nn.Module | None = None

    @property
    def subject(self) -> dict[str, Any]:
        """What decides the numbers, wherever the files lie: equal for the same model."""
        return {key: self.about[key] for key in ("library", "architecture", "files")}


def about(
    library: str,
    package: str,
    *,
    id: str,
    architecture: str,
    files: Iterable[Path],
    revision: str | None = None,
) -> dict[str, Any]:
    """The record of a model, with the digests of its files.

    Args:
        library: Its name.
        package: The package on PyPI whose version counts.
        id: As the user named the model.
        architecture: The name of the architecture, as the library has it.
        files: All that make the model: weights, configs, tokenizer.
        revision: Commit of the hub; None = taken from the path of a file in the hub's cache, where it is one.
    """
    files = list(files)
    return {
        "library": library,
        "version": version(package),
        "id": id,
        "architecture": architecture,
        "revision": hub_revision(files) if revision is None else revision,
        "files": {path.name: file_digest(path, "sha256") for path in files},
    }


def weights_file(prefix: str, place: str) -> Path:
    """The file of a model that is one file. CheckpointError for a folder."""
    file = Path(place)
    if file.is_dir():
        raise CheckpointError(f"{prefix}:{place}: is a folder; expected the file with the weights in it.")
    return file


def small_files(folder: Path) -> list[Path]:
    """Configs and files of tokenizers in a folder, sorted."""
    return sorted(path for ending in ("*.json", "*.txt", "*.model") for path in folder.glob(ending))


def hub_revision(files: Iterable[Path]) -> str | None:
    """The commit in the path of a file in the cache of the Hugging Face hub (``.../snapshots/<commit>/...``)."""
    for path in files:
        parts = path.parts
        if "snapshots" in parts[:-2]:
            return parts[parts.index("snapshots") + 1]
    return None
