"""Parameter names in checkpoint files: helpers of all conversions. Each file of this package holds one key table."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from hypvl.errors import CheckpointError

# Name parts that torch's wrappers insert anywhere, and those of modules around a model.
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_AROUND = ("module", "model")
# Names that only CLIP files of OpenAI and open_clip have, and the prefix of texts in its CustomTextCLIP layout.
_OPEN_CLIP = ("token_embedding.weight", "visual.class_embedding")
_OPEN_CLIP_TEXT = "text."
# Feature transforms as hypvl 0.1.0 named them; a single one had no number.
_OLD_TRANSFORM = re.compile(r"(^|\.)(image|text)_post\.(?:(\d+)\.)?")


def is_open_clip(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether a state_dict carries the names of OpenAI's CLIP or of open_clip."""
    return any(key in _OPEN_CLIP or key.startswith(_OPEN_CLIP_TEXT) for key in without_wrappers(state_dict))


def current_name(name: str) -> str:
    """The present name of a parameter or buffer that an earlier hypvl named differently."""
    return _OLD_TRANSFORM.sub(lambda m: f"{m[1]}{m[2]}_transforms.{m[3] or 0}.", name)


def listed(names: Iterable[str], *, limit: int = 6) -> str:
    """Names joined by commas, at most ``limit`` of them, then how many more there are."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "none") + more


def without_wrappers(state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The state_dict without the name parts that wrappers add, around the whole model or a part of it.

    ``_orig_mod`` (torch.compile) and the steps of FSDP and of activation checkpointing are removed anywhere;
    ``module.`` (DataParallel, DistributedDataParallel) and ``model.`` (trainers that hold the model) at the front,
    and ``module.`` also after the first part, where all names of that part have it.

    Raises:
        CheckpointError: Two names become one.
    """
    names = {}
    for key in state_dict:
        steps = [step for step in key.split(".") if step not in _WRAPPERS]
        while len(steps) > 1 and steps[0] in _AROUND:
            del steps[0]
        names[key] = steps
    for part in {steps[0] for steps in names.values()}:
        inside = [steps for steps in names.values() if steps[0] == part]
        while all(len(steps) > 2 and steps[1] == _AROUND[0] for steps in inside):
            for steps in inside:
                del steps[1]
    plain: dict[str, Tensor] = {}
    for key, steps in names.items():
        name = ".".join(steps)
        if name in plain:
            raise CheckpointError(
                f"state_dict: {name} stands there twice, with prefixes of wrappers and without (or with others); "
                "expected one state_dict, save the model alone."
            )
        plain[name] = state_dict[key]
    return plain
