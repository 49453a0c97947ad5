"""Image-text models of transformers, from a folder or the hub: CLIP, MetaCLIP 2, SigLIP, SigLIP 2, BLIP, BLIP-2."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from hypvl.encoders.huggingface_towers import HuggingFaceImageTower, HuggingFaceTextTower, load_processors
from hypvl.encoders.mlp_heads import IdentityHead
from hypvl.encoders.text_huggingface import UNLOADABLE, load_config, require_transformers
from hypvl.errors import CheckpointError, UserError
from hypvl.geometry.scorers import LOG_SCALE_INIT, Cosine
from hypvl.geometry.sphere import Sphere
from hypvl.io.hub import model_snapshot
from hypvl.io.json_text import read_object
from hypvl.models.convert import listed
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.foreign import blip2
from hypvl.models.foreign.record import ForeignModel, about, small_files
from hypvl.models.matching import BlipMatching

_SMALL = ("*.json", "*.txt", "*.model")
_WEIGHTS = ("model.safetensors", "model-*.safetensors"), ("pytorch_model.bin", "pytorch_model-*.bin")
# Log scales above this are none of a trained model; the published ones reach log 120.
_LOG_SCALE_MAX = 8.0
_MASKS = ("position_ids",)  # buffers that older files store


class Parts(NamedTuple):
    """What a family is built of."""

    model: Any  # of transformers, with its weights
    processor: Any  # of images
    tokenizer: Any  # of hypvl
    source: str


class Family(NamedTuple):
    """A kind of model."""

    architecture: str  # the class of transformers
    context_length: Callable[[Any], int]  # of its config
    build: Callable[[Parts], DualEncoder]


def load(place: str, *, device: str | torch.device = "cpu") -> ForeignModel:
    """A folder of ``save_pretrained``, a hub id ``owner/name``, or ``owner/name@revision``. Code in it is never run.

    Raises:
        UserError: when transformers is not installed.
        DownloadError: when the hub does not give it.
        CheckpointError: for another architecture, or weights that do not fit; what differs is listed.
    """
    transformers = require_transformers()
    folder, revision = _folder(place)
    _refuse_own(place, folder)
    config = load_config(str(folder))
    family = _family(place, config)
    weights = _weights(place, folder, revision)
    kind = getattr(transformers, family.architecture, None)
    if kind is None:
        raise UserError(
            f"hf:{place}: transformers {transformers.__version__} has no {family.architecture}; install a later one: "
            "pip install -U transformers."
        )
    model = _with_weights(place, kind, folder, config)
    length = family.context_length(config)
    processor, tokenizer = load_processors(str(folder), context_length=length)
    built = family.build(Parts(model, processor, tokenizer, place))
    record = about(
        "transformers",
        "transformers",
        id=place,
        architecture=family.architecture,
        files=[*weights, *small_files(folder)],
    )
    return ForeignModel(built, record, library_model=model)


def _image_tower(parts: Parts, read: Callable[[Any, torch.Tensor], torch.Tensor]) -> HuggingFaceImageTower:
    """The image half; ``read`` gives one vector of its trunk for each image."""
    config = parts.model.config.vision_config
    return HuggingFaceImageTower(
        parts.model.vision_model,
        read,
        width=config.hidden_size,
        image_size=config.image_size,
        processor=parts.processor,
        source=parts.source,
    )


def _clip(parts: Parts) -> DualEncoder:
    model, config = parts.model, parts.model.config
    visual = _image_tower(parts, lambda trunk, pixels: trunk(pixel_values=pixels).pooler_output)
    textual = HuggingFaceTextTower(
        model.text_model,
        lambda trunk, ids, mask: trunk(input_ids=ids, attention_mask=mask).pooler_output,
        width=config.text_config.hidden_size,
        tokenizer=parts.tokenizer,
        vocab_size=config.text_config.vocab_size,
    )
    heads = model.visual_projection, model.text_projection
    return _dual(visual, textual, heads, log_scale=model.logit_scale)


def _siglip(parts: Parts) -> DualEncoder:
    model, config = parts.model, parts.model.config
    visual = _image_tower(parts, lambda trunk, pixels: trunk(pixel_values=pixels).pooler_output)
    textual = HuggingFaceTextTower(
        model.text_model,
        lambda trunk, ids, mask: trunk(input_ids=ids).pooler_output,  # trained without a mask
        width=config.text_config.projection_size,
        tokenizer=parts.tokenizer,
        vocab_size=config.text_config.vocab_size,
        full_rows=True,
    )
    heads = IdentityHead(visual.width), IdentityHead(textual.width)
    return _dual(visual, textual, heads, log_scale=model.logit_scale, bias=model.logit_bias)


def _blip(parts: Parts) -> DualEncoder:
    model, config = parts.model, parts.model.config
    visual = _image_tower(parts, lambda trunk, pixels: trunk(pixel_values=pixels).last_hidden_state[:, 0])
    textual = HuggingFaceTextTower(
        model.text_encoder,
        lambda trunk, ids, mask: trunk(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0],
        width=config.text_config.hidden_size,
        tokenizer=parts.tokenizer,
        vocab_size=config.text_config.vocab_size,
    )
    built = _dual(visual, textual, (model.vision_proj, model.text_proj))
    built.pair_scorer = BlipMatching(
        model, visual=visual, tokenizer=parts.tokenizer, fill_id=textual.fill_id, name="BLIP's matching head"
    )
    return built


def _text_positions(config: Any) -> int:
    return int(config.text_config.max_position_embeddings)


FAMILIES: Mapping[str, Family] = {
    "clip": Family("CLIPModel", _text_positions, _clip),
    "metaclip_2": Family("MetaClip2Model", _text_positions, _clip),
    "siglip": Family("SiglipModel", _text_positions, _siglip),
    "blip": Family("BlipForImageTextRetrieval", _text_positions, _blip),
    "blip-2": Family(
        "Blip2ForImageTextRetrieval",
        lambda config: int(config.qformer_config.max_position_embeddings),
        lambda parts: blip2.build(*parts),
    ),
}


def _dual(
    visual: nn.Module,
    textual: nn.Module,
    heads: tuple[nn.Module, nn.Module],
    *,
    log_scale: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> DualEncoder:
    """Cosines with the scale and the bias of the model; a model without a scale keeps CLIP's first one."""
    scorer = Cosine(
        log_scale_max=_LOG_SCALE_MAX,
        log_scale_init=LOG_SCALE_INIT if log_scale is None else log_scale.item(),
        bias_init=None if bias is None else bias.item(),
    )
    return DualEncoder(
        visual,
        textual,
        visual_head=lambda width: heads[0],
        textual_head=lambda width: heads[1],
        geometry=Sphere(),
        scorer=scorer,
    )


def _folder(place: str) -> tuple[Path, str | None]:
    """The folder with the files, and the revision that was asked for."""
    if Path(place).is_dir():
        return Path(place), None
    repository, _, revision = place.partition("@")
    if repository.count("/") != 1 or repository.startswith((".", "/", "~")):
        raise CheckpointError(
            f"hf:{place}: no such folder; expected one with config.json, as save_pretrained writes it, or a hub id "
            "owner/name."
        )
    return model_snapshot(repository, revision=revision or None, patterns=_SMALL), revision or None


def _refuse_own(place: str, folder: Path) -> None:
    """Say how a folder of hypvl's own ``save_pretrained`` is evaluated."""
    file = folder / "config.json"
    if not file.is_file():
        return
    own = read_object(file, expected="the config that save_pretrained wrote").get("model")
    if isinstance(own, Mapping) and "_target_" in own:
        raise CheckpointError(
            f"hf:{place}: is a model of hypvl, not of transformers; give it by --checkpoint-path "
            f"{folder / 'model.safetensors'} --train-config {folder}."
        )


def _family(place: str, config: Any) -> Family:
    kind = str(config.model_type)
    if kind == "siglip2":
        raise CheckpointError(
            f"hf:{place}: is a SigLIP 2 of any image shape (NaFlex), but the evaluators give square images; take one "
            "of a fixed size, such as google/siglip2-base-patch16-224."
        )
    family = FAMILIES.get(kind)
    if family is None:
        raise CheckpointError(
            f"hf:{place}: model_type is {kind!r}; expected one of {', '.join(FAMILIES)}, with an image and a text half."
        )
    said = list(getattr(config, "architectures", None) or [])
    if said and family.architecture not in said:
        raise CheckpointError(
            f"hf:{place}: holds a {', '.join(said)}; expected a {family.architecture}, which has the heads that make "
            "embeddings of images and of texts."
        )
    return family


def _weights(place: str, folder: Path, revision: str | None) -> list[Path]:
    """The files of weights; those of the hub are fetched now."""
    for patterns in _WEIGHTS:
        if not Path(place).is_dir():
            folder = model_snapshot(place.partition("@")[0], revision=revision, patterns=[*_SMALL, *patterns])
        found = sorted(path for pattern in patterns for path in folder.glob(pattern))
        if found:
            return found
    raise CheckpointError(
        f"hf:{place}: has no weights; expected {_WEIGHTS[0][0]} or {_WEIGHTS[1][0]} beside config.json."
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own report of what does not fit, which is an error here, and its bar on no terminal."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _with_weights(place: str, kind: Any, folder: Path, config: Any) -> Any:
    """The model of transformers; every weight of it must be in the files."""
    try:
        with _quiet():
            model, report = kind.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except UNLOADABLE as error:
        raise CheckpointError(
            f"hf:{place}: transformers cannot load it ({' '.join(str(error).split())[:200]}); expected files that "
            "save_pretrained wrote, whole."
        ) from error
    missing = sorted(name for name in report["missing_keys"] if not name.endswith(_MASKS))
    shapes = [
        f"{name} is {tuple(there)} in the file, {tuple(here)} in the model"
        for name, there, here in sorted(report["mismatched_keys"])
    ]
    parts = {name for name, _ in model.named_children()}  # what lies beside them is of another task
    unexpected = sorted(
        name
        for name in report["unexpected_keys"]
        if name.partition(".")[0] in parts and not name.endswith(_MASKS)
    )
    if missing or shapes or unexpected:
        raise CheckpointError(
            f"hf:{place}: the weights are of another architecture than config.json ({kind.__name__}): missing "
            f"{listed(missing)}; of another shape {listed(shapes, limit=3)}; unexpected {listed(unexpected)}."
        )
    bad = [name for name, tensor in model.state_dict().items() if not bool(tensor.isfinite().all())]
    if bad:
        raise CheckpointError(f"hf:{place}: {listed(bad)} hold NaN or infinity; take other weights.")
    return model
