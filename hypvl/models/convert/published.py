"""Published checkpoints of every family: whose names they carry, and what converts them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from hypvl.models.convert import hyper3, meru, phyclip, uncha, without_wrappers

Convert: TypeAlias = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


@dataclass(frozen=True)
class Family:
    """Published models with the same parameter names."""

    name: str  # of the models, as a message says it
    definitions: str  # their names in hypvl
    to_hypvl: Convert
    to_official: Convert


MERU = Family(
    "CLIP, MERU, ATMG or HyCoCLIP", "{clip,meru,atmg,hycoclip}_vit_*", meru.to_hypvl, meru.to_official
)
UNCHA = Family("UNCHA (three logit scales)", "uncha_vit_*", uncha.to_hypvl, uncha.to_official)
PHYCLIP = Family(
    "PHyCLIP (a scale and a curvature for each factor)",
    "phyclip_vit_*",
    phyclip.to_hypvl,
    phyclip.to_official,
)
HYPER3 = Family("Hyper3-CLIP", "hyper3clip_vit_b", hyper3.to_hypvl, hyper3.to_official)
HYPER3_V1 = Family(
    "Hyper3-CLIP of the hub, v1 (one logit scale)", "hyper3clip_v1_vit_b", hyper3.to_hypvl, hyper3.to_official
)


def family_of_file(state_dict: Mapping[str, Tensor]) -> Family:
    """The family whose published names a state_dict carries; that of MERU for any other names."""
    if hyper3.is_hyper3(state_dict):
        return HYPER3_V1 if "logit_scale" in without_wrappers(state_dict) else HYPER3
    if phyclip.is_phyclip(state_dict):
        return PHYCLIP
    return UNCHA if uncha.is_uncha(state_dict) else MERU


def family_of_model(state_dict: Mapping[str, Tensor]) -> Family:
    """The family that a model of ours belongs to, by our names and shapes; that of MERU for any other."""
    if "visual_head.projection.bias" in state_dict and "visual_head.log_scale" in state_dict:
        return HYPER3 if "scorer.log_scale_local" in state_dict else HYPER3_V1
    if "scorer.log_scale_local" in state_dict:
        return UNCHA
    curv = state_dict.get("geometry.log_curv")
    return PHYCLIP if curv is not None and curv.ndim == 1 else MERU


def to_hypvl(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers under our names; our own names come back as they are today.

    Args:
        state_dict: ``model`` of a published or of our checkpoint; prefixes of wrappers are taken off.

    Raises:
        CheckpointError: Missing or unexpected names, or names of none of the families.
    """
    return family_of_file(state_dict).to_hypvl(state_dict)


def to_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers under the published names of the family that a model belongs to.

    Raises:
        CheckpointError: The model has a part that the published naming has no name for, or lacks one.
    """
    return family_of_model(without_wrappers(state_dict)).to_official(state_dict)
