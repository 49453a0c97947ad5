"""CompRess with one memory, of captions: images are as similar to it as their captions are."""

from hypvl.config import LazyCall as L
from hypvl.losses.base import Objective
from hypvl.losses.compress import CompRess1q

objective = L(Objective)(
    terms=dict(
        compress=L(CompRess1q)(
            student="image",
            teacher="text",
            dim=512,
            queue_size=128000,
            temperature=0.04,
            variant="original",
            detach_teacher=True,
            implementation="auto",
        ),
    ),
    weights=dict(compress=1.0),
)
