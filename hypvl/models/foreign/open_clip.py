"""Models of open_clip as they are published: every architecture it builds, with their own tokenizer and transform."""

import torch

from hypvl.encoders.open_clip_configs import (
    CONFIG_FILE,
    architecture,
    evaluation_transform,
    folder_of,
    pretrained_tags,
)
from hypvl.errors import ConfigError
from hypvl.models import open_clip
from hypvl.models.foreign.record import ForeignModel, about, small_files
from hypvl.models.hub import create_model

_OWN_FOLDER = ("local-dir:", "hf-hub:")


def load(place: str, *, device: str | torch.device = "cpu") -> ForeignModel:
    """``"ViT-B-32/laion2b_s34b_b79k"``, ``"ViT-B-32/<file>"``, ``"local-dir:<folder>"`` or ``"hf-hub:owner/name"``.

    Raises:
        ConfigError: for a name or weights that open_clip does not know; the closest are named.
        UserError: when weights, or the files of a tokenizer, cannot be fetched.
        CheckpointError: for weights of another architecture, whose differences are listed.
    """
    name, weights = split(place)
    architecture(name)  # refuses an unknown name before its weights
    file = open_clip.weights(name, weights)
    model = create_model(open_clip.PREFIX + name, weights, device=device)
    assert model.visual is not None and file is not None
    model.visual.image_transform = evaluation_transform(name, weights, size=model.image_size)  # type: ignore[assignment]
    model.tokenizer(["a"])  # whose files may be missing, too: said now, not at the first text
    folder = folder_of(name)
    files = [file] if folder is None else [file, *small_files(folder)]
    record = about(
        "open_clip",
        "open_clip_torch",
        id=place,
        architecture=name if folder is None else CONFIG_FILE,
        files=files,
    )
    return ForeignModel(model, record)


def split(place: str) -> tuple[str, str | None]:
    """Architecture and weights: a tag or the path of a file; None where the name brings its own weights.

    Raises:
        ConfigError: without weights; the tags are named.
    """
    if place.startswith(_OWN_FOLDER):
        return place, None
    name, separator, weights = place.partition("/")
    if separator and weights:
        return name, weights
    tags = pretrained_tags(name)  # refuses an unknown name
    known = f"one of {', '.join(tags)}" if tags else "the path of a file, as it has no tags"
    raise ConfigError(f"open_clip:{name}: says no weights; expected open_clip:{name}/WEIGHTS with {known}.")
