"""SigLIP: a binary question for each pair. The scorer of the model needs a bias (configs/common/model/siglip.py)."""

from hypvl.config import LazyCall as L
from hypvl.losses.base import Objective
from hypvl.losses.sigmoid import Sigmoid

objective = L(Objective)(
    terms=dict(sigmoid=L(Sigmoid)(query="image", key="text", denominator="batch")),
    weights=dict(sigmoid=1.0),
)
