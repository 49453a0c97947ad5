"""Models that hypvl did not train, by one name each: ``open_clip:NAME/WEIGHTS``, ``hf:FOLDER``, ``onnx:FILE``.

Each is a :class:`~hypvl.models.dual_encoder.DualEncoder` of towers of the library itself, with its own tokenizer
(``model.tokenizer``) and its own transform of images (``model.image_transform``). A further kind is a file in this
folder with a function ``load(place, *, device) -> ForeignModel``, and a line in :data:`LOADERS`.
"""

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hypvl.allowlist import configurable
from hypvl.checks import closest
from hypvl.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from hypvl.models.foreign.record import ForeignModel

#: Prefix -> (module with ``load``, what stands after the prefix).
LOADERS = {
    "open_clip": ("open_clip", "NAME/WEIGHTS, such as ViT-B-32/laion2b_s34b_b79k"),
    "onnx": ("onnx", "a file or a folder, such as model.onnx or image.onnx,text.onnx"),
    "lavis": ("lavis", "a file, such as checkpoints/model_base_retrieval_coco.pth"),
    "xvlm": ("xvlm", "a file, such as checkpoints/itr_coco.th"),
    "hf": ("huggingface", "a hub id or a folder, such as openai/clip-vit-base-patch32"),
}


def parse(name: str) -> tuple[str, str]:
    """``"prefix:place"`` as (prefix, place).

    Raises:
        ConfigError: for another prefix (the closest is named), or nothing after it.
    """
    prefix, separator, place = name.partition(":")
    known = "; ".join(f"{key}: and {what}" for key, (_, what) in LOADERS.items())
    if not separator or prefix not in LOADERS:
        near = closest(prefix, LOADERS, cutoff=0.6) if separator else None
        hint = f" (closest: {near}:)" if near else ""
        raise ConfigError(
            f"--model: got {name!r}, which begins with no known prefix{hint}; expected {known}. Models of hypvl are "
            "given by --checkpoint-path."
        )
    if not place.strip():
        raise ConfigError(
            f"--model: got {name!r} with nothing after the colon; expected {LOADERS[prefix][1]}."
        )
    return prefix, place


def load_foreign(name: str, *, device: "str | torch.device" = "cpu") -> "ForeignModel":
    """A foreign model by its name, in evaluation mode.

    Args:
        name: ``"open_clip:ViT-B-32/laion2b_s34b_b79k"`` and the like, see :data:`LOADERS`.
        device: Where the model is put.

    Raises:
        ConfigError: for a name that says no model.
        UserError: when a package that it needs is not installed (the pip command is named), or files cannot be fetched.
        CheckpointError: when its files are missing, broken, or of another architecture.

    Example:
        >>> foreign = load_foreign("hf:openai/clip-vit-base-patch32")  # doctest: +SKIP
        >>> foreign.model.encode_text(foreign.model.tokenizer(["a cat"]))  # doctest: +SKIP
    """
    prefix, place = parse(name)
    loaded: ForeignModel = import_module(f"{__name__}.{LOADERS[prefix][0]}").load(place, device=device)
    loaded.model.to(device).eval()
    if loaded.library_model is not None:  # its matching head
        loaded.library_model.to(device).eval()
    return loaded


@configurable("evaluate")
def matching_head(name: str, *, device: str | None = None) -> Any:
    """The matching head of a foreign model as pair scorer: it re-ranks what another model has found.

    Args:
        name: ``"hf:Salesforce/blip-itm-base-coco"``, ``"lavis:<file>"``, ``"xvlm:<file>"``.
        device: Where it is put; None = a GPU if there is one, else the CPU.

    Raises:
        ConfigError: for a model without a matching head, and as :func:`load_foreign`.
    """
    import torch

    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    scorer = load_foreign(name, device=device).model.pair_scorer
    if scorer is None:
        raise ConfigError(
            f"{name}: has no matching head; expected BLIP, BLIP-2 or X-VLM (hf:, lavis: or xvlm:)."
        )
    scorer.name = f"{scorer.name}, {name}"
    return scorer


def slug(name: str) -> str:
    """A name as the name of a folder: ``open_clip_ViT-B-32_laion2b_s34b_b79k``."""
    return re.sub(r"[^\w.+-]+", "_", name).strip("_.") or "model"
