"""Which checkpoint a training run's folder stands for."""

from pathlib import Path

from hypvl.errors import CheckpointError

FINAL_NAME = "checkpoint_final.pth"
LAST_NAME = "last_checkpoint.txt"


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that ``last_checkpoint.txt`` names, or None for a folder without one.

    Raises:
        CheckpointError: when the file it names is gone.
    """
    pointer = folder / LAST_NAME
    if not pointer.is_file():
        return None
    path = folder / Path(pointer.read_text().strip()).name
    if not path.is_file():
        raise CheckpointError(
            f"{pointer}: names {path.name}, which is not in {folder}; "
            "put it back, or write the name of a checkpoint that is there."
        )
    return path


def checkpoint_file(path: str | Path) -> Path:
    """A checkpoint's path as it is; for a folder of a run, its final checkpoint, or the last one it wrote.

    Raises:
        CheckpointError: for a folder that is no run, or whose last checkpoint is gone.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    final = path / FINAL_NAME
    found = final if final.is_file() else last_checkpoint(path)
    if found is None:
        raise CheckpointError(
            f"{path}: a folder with neither {FINAL_NAME} nor {LAST_NAME}; expected a checkpoint file (.pth or "
            ".safetensors) or the folder of a training run."
        )
    return found
