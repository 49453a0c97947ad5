"""DINO between images and captions: the caption says which prototypes an image belongs to."""

from hypvl.config import LazyCall as L
from hypvl.losses.base import Objective
from hypvl.losses.dino import DINO

objective = L(Objective)(
    terms=dict(
        dino=L(DINO)(
            student="image",
            teacher="text",
            count=65536,
            prototypes="own",
            frozen_steps=0,
            student_temperature=0.1,
            teacher_temperature=0.04,
            start_temperature=0.04,
            warmup_steps=0,
            center_momentum=0.9,
            detach_teacher=True,
        ),
    ),
    weights=dict(dino=1.0),
)
