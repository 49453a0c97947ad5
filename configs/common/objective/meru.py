"""MERU: contrastive, and texts entail their images."""

from hypvl.config import LazyCall as L
from hypvl.losses.base import Objective
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.entailment import Entailment

objective = L(Objective)(
    terms=dict(
        contrastive=L(Contrastive)(pairs=[["image", "text"], ["text", "image"]]),
        entailment=L(Entailment)(general="text", specific="image", aperture_factor=1.0),
    ),
    weights=dict(contrastive=1.0, entailment=0.2),
)
