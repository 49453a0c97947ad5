"""ProtoCPC between images and captions."""

from hypvl.config import LazyCall as L
from hypvl.losses.base import Objective
from hypvl.losses.proto_cpc import ProtoCPC

objective = L(Objective)(
    terms=dict(
        proto_cpc=L(ProtoCPC)(
            student="image",
            teacher="text",
            count=65536,
            prototypes="own",
            frozen_steps=0,
            student_temperature=0.1,
            teacher_temperature=0.04,
            assignment="softmax",
            iterations=3,
            prior_momentum=0.9,
            detach_teacher=True,
        ),
    ),
    weights=dict(proto_cpc=1.0),
)
