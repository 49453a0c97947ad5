"""Contrastive with alignment and uniformity of each modality, weights 1, as in I0T's first stage by that name."""

from hypvl.config import LazyCall as L
from hypvl.losses.base import Objective
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.uniformity import Align, Uniform

objective = L(Objective)(
    terms=dict(
        contrastive=L(Contrastive)(pairs=[["image", "text"], ["text", "image"]]),
        align=L(Align)(first="image", second="text"),
        uniform_image=L(Uniform)(view="image", t=2.0),
        uniform_text=L(Uniform)(view="text", t=2.0),
    ),
    weights=dict(contrastive=1.0, align=1.0, uniform_image=1.0, uniform_text=1.0),
)
