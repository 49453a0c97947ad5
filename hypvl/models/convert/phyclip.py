"""Parameter names of the published PHyCLIP files and ours, in both directions.

Those of MERU, and a curvature and two scales for each factor, which are one tensor here: ``curvs.3`` is
``geometry.log_curv[3]``. The published model inherits MERU's three scalars and uses none of them.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from hypvl.errors import CheckpointError
from hypvl.models.convert import listed, meru, without_wrappers

# published list of scalars -> the scalar of MERU whose place it takes
FACTORS = {
    "curvs": "curv",
    "visual_concept_alphas": "visual_alpha",
    "textual_concept_alphas": "textual_alpha",
}


def is_phyclip(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether a state_dict carries the published names."""
    return any(key.rpartition(".")[0] in FACTORS for key in without_wrappers(state_dict))


def to_hypvl(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers under our names; MERU's scalars, which the published model does not use, are left out.

    Raises:
        CheckpointError: Missing or unexpected names, or factors that do not fit together.
    """
    state_dict = without_wrappers(state_dict)
    rest = {
        key: tensor
        for key, tensor in state_dict.items()
        if key.rpartition(".")[0] not in FACTORS and key not in meru.HYPERBOLIC
    }
    counts = {key: sum(name.rpartition(".")[0] == key for name in state_dict) for key in FACTORS}
    factors = max(counts.values())
    wanted = [f"{key}.{i}" for key in FACTORS for i in range(factors)]
    if missing := [name for name in wanted if name not in state_dict]:
        raise CheckpointError(
            f"state_dict: missing {listed(missing)}; expected a curvature and two scales for each of the {factors} "
            "factors of a published PHyCLIP checkpoint."
        )
    if misshaped := [name for name in wanted if state_dict[name].ndim]:
        raise CheckpointError(
            f"state_dict: {listed(misshaped)} have dimensions; expected 0-dim scalars, one of each factor."
        )
    for key, name in FACTORS.items():
        rest[name] = torch.stack([state_dict[f"{key}.{i}"] for i in range(factors)])  # (F,)
    return meru.to_hypvl(rest)


def to_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers under the published names, in the published order; unused scalars have their first values.

    Raises:
        CheckpointError: The model has a part that the published naming has no name for, or lacks one.
    """
    state_dict = without_wrappers(state_dict)
    if is_phyclip(state_dict):
        return dict(state_dict)
    converted = meru.renamed(state_dict)
    shapes = {name: tuple(converted[name].shape) for name in FACTORS.values() if name in converted}
    if len(shapes) < len(FACTORS) or len({*shapes.values()}) > 1 or len(shapes["curv"]) != 1:
        raise CheckpointError(
            f"state_dict: {shapes or 'no curvature'}; expected a PHyCLIP model, with a curvature and two scales for "
            "each factor (factors of its heads as of its geometry)."
        )
    factors = {key: converted[name] for key, name in FACTORS.items()}
    scale = -0.5 * torch.tensor(float(converted["visual_proj.weight"].shape[0])).log()
    unused = {"curv": torch.zeros(()), "visual_alpha": scale, "textual_alpha": scale.clone()}
    lists = {f"{key}.{i}": value.clone() for key, values in factors.items() for i, value in enumerate(values)}
    return {**converted, **unused, **lists}
