"""Barlow Twins of images and their captions, both trained."""

from hypvl.config import LazyCall as L
from hypvl.losses.barlow_twins import BarlowTwins
from hypvl.losses.base import Objective

objective = L(Objective)(
    terms=dict(
        barlow_twins=L(BarlowTwins)(
            student="image", teacher="text", off_diagonal=0.0051, variant="original", detach_teacher=False
        ),
    ),
    weights=dict(barlow_twins=1.0),
)
