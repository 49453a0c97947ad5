"""ModGap: contrastive, alignment, and centres of pairs that spread out. Its weights were not seen: 1 each."""

from hypvl.config import LazyCall as L
from hypvl.losses.base import Objective
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.uniformity import Align, CentreUniform

objective = L(Objective)(
    terms=dict(
        contrastive=L(Contrastive)(pairs=[["image", "text"], ["text", "image"]]),
        align=L(Align)(first="image", second="text"),
        centre_uniform=L(CentreUniform)(first="image", second="text", t=2.0),
    ),
    weights=dict(contrastive=1.0, align=1.0, centre_uniform=1.0),
)
