"""BLIP and BLIP-2 from a file in LAVIS's format, by the classes of transformers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from torch import Tensor

from hypvl.encoders.huggingface_towers import load_tokenizer
from hypvl.encoders.text_huggingface import require_transformers
from hypvl.errors import CheckpointError
from hypvl.models.checkpoint_io import load_checkpoint
from hypvl.models.convert import lavis, listed
from hypvl.models.foreign.huggingface import FAMILIES, Parts
from hypvl.models.foreign.record import ForeignModel, about, small_files, weights_file
from hypvl.models.matching import BlipMatching

#: The frozen image encoder of BLIP-2, looked for beside a file that lacks one.
IMAGE_ENCODER = "eva_vit_g.pth"
#: The tokenizer of both, unless the folder of the file holds one.
TOKENIZER = "google-bert/bert-base-uncased"
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")
# Tokens of a text in LAVIS's retrieval.
_CONTEXT: Mapping[lavis.Kind, int] = {"blip": 35, "blip-2": 32}
# [DEC] and [ENC], which BLIP adds to the ids of the tokenizer; the second begins a text for the matching head.
_ADDED = 2


def load(place: str, *, device: str | torch.device = "cpu") -> ForeignModel:
    """A ``.pth`` file; its sizes are read from its weights, and nothing in it is executed.

    Raises:
        UserError: when transformers is not installed.
        CheckpointError: for another file, or one that lacks weights; what is missing is listed.
        DataError: when there is no tokenizer.
    """
    transformers = require_transformers()
    file = weights_file("lavis", place)
    content = load_checkpoint(file)
    files = [file]
    state: Mapping[str, Tensor] = content["model"]
    try:
        kind = lavis.kind_of(state)
        frozen = file.with_name(IMAGE_ENCODER)
        if kind == "blip-2" and not lavis.has_image_encoder(state) and frozen.is_file():
            logger.info("{}: has no image encoder; taking that of {}", file, frozen)
            state = lavis.with_image_encoder(state, load_checkpoint(frozen)["model"])
            files.append(frozen)
        weights = lavis.to_transformers(state)
        config = lavis.config_of(weights)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error
    assert kind is not None  # else to_transformers has refused it
    family = FAMILIES[kind]
    given: Any = getattr(transformers, "BlipConfig" if kind == "blip" else "Blip2Config")(**config)
    model = getattr(transformers, family.architecture)(given)
    fill(model, weights, source=str(file))
    own = own_tokenizer(file)
    tokenizer = load_tokenizer(str(file.parent) if own else TOKENIZER, context_length=_CONTEXT[kind])
    processor = transformers.BlipImageProcessor.from_dict(
        lavis.processor_of(config["vision_config"]["image_size"])
    )
    built = family.build(Parts(model.eval(), processor, tokenizer, place))
    if isinstance(built.pair_scorer, BlipMatching):
        count = tokenizer.vocab_size
        begins = built.pair_scorer.model.config.text_config.vocab_size == count + _ADDED
        built.pair_scorer.first_id = count + _ADDED - 1 if begins else None
    if own:
        files += small_files(file.parent)
    record = about("LAVIS's format", "transformers", id=place, architecture=family.architecture, files=files)
    return ForeignModel(built, record, library_model=model)


def own_tokenizer(file: Path) -> bool:
    """Whether a tokenizer lies beside a file."""
    return any((file.parent / name).is_file() for name in _TOKENIZER_FILES)


def fill(model: Any, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Put all weights in; CheckpointError names what is missing, of another shape, or not finite."""
    wanted = {
        name: tensor for name, tensor in model.state_dict().items() if not name.endswith("position_ids")
    }
    missing = [name for name in wanted if name not in weights]
    unexpected = [name for name in weights if name not in wanted]
    shapes = [
        f"{name} is {tuple(weights[name].shape)} in the file, {tuple(tensor.shape)} in the model"
        for name, tensor in wanted.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if missing or unexpected or shapes:
        raise CheckpointError(
            f"{source}: does not fit {type(model).__name__} (its own names): missing {listed(missing)}; "
            f"unexpected {listed(unexpected)}; of another shape {listed(shapes)}; expected a model with "
            "contrastive and matching heads."
        )
    if bad := [name for name, tensor in weights.items() if not bool(tensor.isfinite().all())]:
        raise CheckpointError(f"{source}: {listed(bad)} hold NaN or infinity; take other weights.")
    model.load_state_dict(dict(weights), strict=False)
