"""SimCSE: captions only, told apart by their dropout."""

from hypvl.config import LazyCall as L
from hypvl.losses.base import Objective
from hypvl.losses.simcse import SimCSE

objective = L(Objective)(
    terms=dict(
        simcse=L(SimCSE)(
            first="text", second="text#1", scale=20.0, variant="original", implementation="auto"
        ),
    ),
    weights=dict(simcse=1.0),
)
