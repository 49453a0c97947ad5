"""The mean training embedding, which stands for the root where the geometry has none."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from hypvl import distributed
from hypvl.errors import ConfigError
from hypvl.training.learner import Learner
from hypvl.training.step import to_device


@torch.no_grad()
def mean_embedding(learner: Learner, loader: Iterable[Mapping[str, Any]], *, samples: int) -> Tensor:
    """Normalised mean of the embeddings of training images and texts (a collective).

    Args:
        learner: Whose model encodes; left in its mode.
        loader: Local training batches.
        samples: How many samples over all ranks, at least.

    Returns:
        (D,) unit vector on the CPU.

    Raises:
        ConfigError: unless ``samples`` is at least 1.

    Source: MERU (arXiv 2304.09172) section 5.2: CLIP's [ROOT] is the average of all training embeddings.
    Differs: an average over ``samples`` training samples, not all of them.
    """
    if samples < 1:
        raise ConfigError(f"train.root_samples: got {samples}; expected at least 1.")
    model = learner.model
    device = next(model.parameters()).device
    total = torch.zeros(model.embed_dim, device=device)
    seen = 0
    was_training = model.training
    model.eval()
    for batch in loader:
        batch = to_device(batch, device)
        images, texts = model.encode_image(batch["image"]), model.encode_text(batch["text"])  # (B, D)
        total += images.float().sum(0) + texts.float().sum(0)
        seen += len(images) * distributed.world_size()
        if seen >= samples:
            break
    model.train(was_training)
    return torch.nn.functional.normalize(distributed.all_reduce_sum(total), dim=0).cpu()
