"""SEED: images are as similar to a queue of captions as their own captions are; the temperatures of the paper."""

from hypvl.config import LazyCall as L
from hypvl.losses.base import Objective
from hypvl.losses.seed import SEED

objective = L(Objective)(
    terms=dict(
        seed=L(SEED)(
            student="image",
            teacher="text",
            dim=512,
            queue_size=65536,
            student_temperature=0.2,
            teacher_temperature=0.01,
            detach_teacher=True,
            implementation="auto",
        ),
    ),
    weights=dict(seed=1.0),
)
