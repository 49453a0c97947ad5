"""CompRess with two memories: images among images are as similar as captions among captions."""

from hypvl.config import LazyCall as L
from hypvl.losses.base import Objective
from hypvl.losses.compress import CompRess2q

objective = L(Objective)(
    terms=dict(
        compress=L(CompRess2q)(
            student="image",
            teacher="text",
            student_dim=512,
            teacher_dim=512,
            queue_size=128000,
            temperature=0.04,
            variant="original",
            detach_teacher=True,
            implementation="auto",
        ),
    ),
    weights=dict(compress=1.0),
)
