"""Long-CLIP: long captions with whole images, short ones with their principal components.

The batch needs text (long) and short_text. `objective.weights.short` is what short captions weigh.
"""

from hypvl.config import LazyCall as L
from hypvl.losses.base import Objective
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.long_caption import ShortCaption

objective = L(Objective)(
    terms=dict(
        long=L(Contrastive)(pairs=[["image", "text"], ["text", "image"]], label_smoothing=0.1),
        short=L(ShortCaption)(
            image="image", short="text:short_text", components=32, label_smoothing=0.1, over="gathered"
        ),
    ),
    weights=dict(long=1.0, short=1.0),
)
