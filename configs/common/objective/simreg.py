"""SimReg: images are regressed onto their captions by a predictor that is dropped afterwards."""

from hypvl.config import LazyCall as L
from hypvl.losses.base import Objective
from hypvl.losses.simreg import Predictor, SimReg

objective = L(Objective)(
    terms=dict(
        simreg=L(SimReg)(
            student="image",
            teacher="text",
            distance="squared",
            variant="original",
            predictor=L(Predictor)(in_features=512, out_features=512, layers=2, hidden=2048),
            detach_teacher=True,
        ),
    ),
    weights=dict(simreg=1.0),
)
