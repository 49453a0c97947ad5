"""RKD: relations of images are those of their captions; distances weigh 1, angles 2, as published."""

from hypvl.config import LazyCall as L
from hypvl.losses.base import Objective
from hypvl.losses.rkd import RKDAngle, RKDDistance

objective = L(Objective)(
    terms=dict(
        distance=L(RKDDistance)(student="image", teacher="text", variant="original", detach_teacher=True),
        angle=L(RKDAngle)(
            student="image", teacher="text", variant="original", anchors_at_once=None, detach_teacher=True
        ),
    ),
    weights=dict(distance=1.0, angle=2.0),
)
