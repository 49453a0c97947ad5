"""Parameter names of I0T_async's files: those of Long-CLIP, and a batch norm on the embeddings of each modality.

Source: An et al. 2024, I0T (arXiv 2412.14384), section 3.
"""

from collections.abc import Mapping

from torch import Tensor

from hypvl.errors import CheckpointError

# published prefix -> ours: the first feature transform of the modality
PREFIXES = {"bn_final_image.": "image_transforms.0.", "bn_final_text.": "text_transforms.0."}


def split(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights under open_clip's names, and the batch norms under ours; one without them comes back as it is.

    Raises:
        CheckpointError: One modality has a batch norm, and the other none.
    """
    rest: dict[str, Tensor] = {}
    norms: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)
        if prefix is None:
            rest[name] = tensor
        else:
            norms[PREFIXES[prefix] + name.removeprefix(prefix)] = tensor
    missing = [
        theirs for theirs, ours in PREFIXES.items() if not any(name.startswith(ours) for name in norms)
    ]
    if norms and missing:
        raise CheckpointError(
            f"state_dict: missing {missing[0]}*; expected the batch norms of both modalities, as I0T_async has them."
        )
    return rest, norms
