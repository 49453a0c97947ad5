"""I0T's mix of Long-CLIP and CyCLIP: Long-CLIP's two terms and the mean of CyCLIP over long and short captions."""

from hypvl.config import LazyCall as L
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.cyclip import CrossModalCyclic, InModalCyclic
from hypvl.losses.long_caption import ShortCaption, ShortCyclic

from .long_clip import objective

_short = dict(image="image", short="text:short_text", components=32, over="gathered")
objective.terms.contrastive = L(Contrastive)(pairs=[["image", "text"], ["text", "image"]])
objective.terms.in_modal = L(InModalCyclic)(first="image", second="text")
objective.terms.cross_modal = L(CrossModalCyclic)(first="image", second="text")
objective.terms.contrastive_short = L(ShortCaption)(label_smoothing=0.0, **_short)
objective.terms.cyclic_short = L(ShortCyclic)(**_short)
objective.weights.contrastive = objective.weights.contrastive_short = 0.5
objective.weights.in_modal = objective.weights.cross_modal = objective.weights.cyclic_short = 0.125
