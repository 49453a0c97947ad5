"""Parameter names of ProtoCLIP's files: those of open_clip, and what only its prototype loss uses.

The loss projects the embeddings by a head for each modality and has a logit scale of its own. The embeddings are taken
before these heads, which are left out, as a head of a loss is.

Source: Chen et al. 2022, ProtoCLIP (arXiv 2206.10996).
"""

import re
from collections.abc import Mapping

from loguru import logger
from torch import Tensor

# `image_projection_head.0.weight`, alone or inside an encoder; the scale is `logit_scale_...`.
_HEAD = re.compile(r"(?:.*\.)?(?:\w+_)?projection_head\..+")
_SCALE = "logit_scale_"


def split(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights of the model under open_clip's names, and none besides; a log line counts those of the loss.

    A state_dict without a projection head comes back as it is.
    """
    heads = [name for name in state_dict if _HEAD.fullmatch(name)]
    if not heads:
        return dict(state_dict), {}
    left = {*heads, *(name for name in state_dict if name.startswith(_SCALE))}
    logger.info("left out {} weights of ProtoCLIP's loss (its projection heads and their scale)", len(left))
    return {name: tensor for name, tensor in state_dict.items() if name not in left}, {}
