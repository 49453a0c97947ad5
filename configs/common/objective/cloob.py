"""CLOOB: InfoLOOB on Hopfield retrievals, at the defaults of its published code.

The model's own logit scale takes no part: freeze it (optim.parameters.trainable).
"""

from hypvl.config import LazyCall as L
from hypvl.losses.base import Objective
from hypvl.losses.cloob import CLOOB

objective = L(Objective)(
    terms=dict(cloob=L(CLOOB)(first="image", second="text", beta=14.3, inv_tau=14.3, learn_inv_tau=False)),
    weights=dict(cloob=1.0),
)
