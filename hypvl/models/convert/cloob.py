"""Parameter names of CLOOB's files: those of OpenAI's CLIP, with another name of the logit scale.

CLOOB's loss has an inverse temperature, stored as a logarithm; its Hopfield layers have no parameters.

Source: Fuerst et al. 2022, CLOOB (arXiv 2110.11316).
"""

from collections.abc import Mapping

from torch import Tensor

# Its name in the files, and spellings of the same; open_clip calls it `logit_scale`.
SCALES = ("logit_inv_tau", "log_inv_tau", "inv_tau")
_LOGIT_SCALE = "logit_scale"


def split(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights under open_clip's names, and none besides; a state_dict of another family comes back as it is."""
    if _LOGIT_SCALE in state_dict:
        return dict(state_dict), {}
    return {_LOGIT_SCALE if name in SCALES else name: tensor for name, tensor in state_dict.items()}, {}
