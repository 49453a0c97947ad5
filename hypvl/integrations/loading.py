"""A model for a harness by one name: a checkpoint, the folder of a run, or a model of another library."""

from dataclasses import dataclass
from pathlib import Path

from hypvl.cli.common import user_path
from hypvl.cli.loading import load_trained, pick_device
from hypvl.errors import ConfigError
from hypvl.evaluation.results import settings_digest
from hypvl.models.checkpoint_io import checkpoint_digest, checkpoint_file
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.foreign import LOADERS, load_foreign, slug

_DIGITS = 16  # of a SHA-256, in names of revisions


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode, and what harnesses call it."""

    model: DualEncoder
    name: str  # of its file, or of the foreign model
    revision: str  # differs where weights do


def load_model(place: str | Path, train_config: str | None, *, device: str | None) -> LoadedModel:
    """Load a model.

    Args:
        place: A checkpoint, the folder of a run, or ``"open_clip:..."``, ``"hf:..."`` and the like.
        train_config: Config of a checkpoint, or a name of ``hypvl.list_models()``; None = the checkpoint's own.
        device: None = a GPU if there is one.

    Raises:
        ConfigError: No such file, or a config beside a foreign model.
        CheckpointError, UserError: It cannot be loaded.
    """
    chosen = pick_device(device)
    if isinstance(place, str) and place.partition(":")[0] in LOADERS and not user_path(place).exists():
        if train_config is not None:
            raise ConfigError(f"{place}: got the config {train_config!r}; it brings its own, leave it out.")
        foreign = load_foreign(place, device=chosen)
        return LoadedModel(foreign.model, slug(place), settings_digest(foreign.subject)[:_DIGITS])
    path = Path(checkpoint_file(user_path(str(place))))
    if not path.is_file():
        raise ConfigError(
            f"{place}: no such file; expected a checkpoint, a run's folder, or a name such as "
            f"{', '.join(f'{key}:...' for key in LOADERS)}."
        )
    model, _ = load_trained(path, train_config, device=chosen)
    name = f"{path.absolute().parent.name or 'model'}-{path.stem}"
    return LoadedModel(model, name, checkpoint_digest(path)[:_DIGITS])
