"""CyCLIP: contrastive, and similarities that agree within and across modalities. I0T's first stage is the same."""

from hypvl.config import LazyCall as L
from hypvl.losses.base import Objective
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.cyclip import CrossModalCyclic, InModalCyclic

objective = L(Objective)(
    terms=dict(
        contrastive=L(Contrastive)(pairs=[["image", "text"], ["text", "image"]]),
        in_modal=L(InModalCyclic)(first="image", second="text"),
        cross_modal=L(CrossModalCyclic)(first="image", second="text"),
    ),
    weights=dict(contrastive=1.0, in_modal=0.25, cross_modal=0.25),
)
