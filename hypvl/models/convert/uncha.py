"""Parameter names of the published UNCHA files and ours, in both directions.

Those of MERU, with three logit scales; the one of wholes, which also scores at test time, is ``scorer.log_scale`` here.
The files hold a fourth scale (MERU's) and a head of the text encoder that are in no loss: they keep their first values.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from hypvl.errors import CheckpointError
from hypvl.models.convert import listed, meru, without_wrappers

# published name -> our name, in the published order
SCALES = {
    "global_logit_scale": "scorer.log_scale",
    "global_local_logit_scale": "scorer.log_scale_global_local",
    "local_logit_scale": "scorer.log_scale_local",
}
_TRAINED, _UNUSED = "global_logit_scale", "logit_scale"
_HEAD = "textual.min_radius_head."


def is_uncha(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether a state_dict carries the published names."""
    names = without_wrappers(state_dict)
    return _TRAINED in names and "visual_proj.weight" in names


def to_hypvl(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under our names, without those that are in no loss; pixel statistics are the file's.

    Raises:
        CheckpointError: Missing or unexpected names.
    """
    state_dict = without_wrappers(state_dict)
    if missing := [name for name in SCALES if name not in state_dict]:
        raise CheckpointError(
            f"state_dict: missing {listed(missing)}; expected the three logit scales of a published UNCHA checkpoint."
        )
    rest = {
        key: tensor
        for key, tensor in state_dict.items()
        if key not in (*SCALES, _UNUSED) and not key.startswith(_HEAD)
    }
    rest[_UNUSED] = state_dict[_TRAINED]
    converted = meru.to_hypvl(rest)
    return converted | {ours: state_dict[name] for name, ours in SCALES.items()}


def to_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the published names, in the published order; what is in no loss is made anew.

    Raises:
        CheckpointError: The model has a part that the published naming has no name for, or lacks one.
    """
    state_dict = without_wrappers(state_dict)
    if is_uncha(state_dict):
        return dict(state_dict)
    if missing := [name for name in SCALES.values() if name not in state_dict]:
        raise CheckpointError(
            f"state_dict: missing {listed(missing)}; expected an UNCHA model, with three logit scales."
        )
    further = [name for key, name in SCALES.items() if key != _TRAINED]
    converted = meru.to_official({key: t for key, t in state_dict.items() if key not in further})
    width = converted[meru.POSITIONS].shape[1]
    result = {_UNUSED: torch.tensor(math.log(1 / 0.07))} | {
        name: state_dict[ours] for name, ours in SCALES.items()
    }
    for key, tensor in converted.items():
        if key == "visual_proj.weight":  # after the text encoder
            result |= {f"{_HEAD}0.weight": torch.zeros(1, width), f"{_HEAD}0.bias": torch.zeros(1)}
        result.setdefault(key, tensor)
    return result
