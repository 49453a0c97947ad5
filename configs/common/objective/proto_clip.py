"""ProtoCLIP: CLIP, and after the first episode as much of the prototype loss."""

from hypvl.config import LazyCall as L
from hypvl.losses.base import Objective
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.proto_clip import ProtoCLIP

objective = L(Objective)(
    terms=dict(
        contrastive=L(Contrastive)(pairs=[["image", "text"], ["text", "image"]]),
        prototypes=L(ProtoCLIP)(
            embed_dim=512,
            clusters=20_000,
            episode=199_680,
            iterations=20,
            target_temperature=0.01,
            features=128,
            hidden=2048,
            hidden_layers=1,
        ),
    ),
    weights=dict(contrastive=1.0, prototypes=1.0),
)
