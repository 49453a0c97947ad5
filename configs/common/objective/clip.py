"""The contrastive loss alone: CLIP and ATMG."""

from hypvl.config import LazyCall as L
from hypvl.losses.base import Objective
from hypvl.losses.contrastive import Contrastive

objective = L(Objective)(
    terms=dict(contrastive=L(Contrastive)(pairs=[["image", "text"], ["text", "image"]])),
    weights=dict(contrastive=1.0),
)
