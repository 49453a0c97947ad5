"""VICReg of images and their captions, both trained."""

from hypvl.config import LazyCall as L
from hypvl.losses.base import Objective
from hypvl.losses.vicreg import VICReg

objective = L(Objective)(
    terms=dict(
        vicreg=L(VICReg)(
            student="image",
            teacher="text",
            invariance_weight=25.0,
            variance_weight=25.0,
            covariance_weight=1.0,
            eps=1e-4,
            variant="original",
            detach_teacher=False,
        ),
    ),
    weights=dict(vicreg=1.0),
)
