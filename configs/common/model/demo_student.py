"""A student of the demo's CLIP: an image encoder of a quarter of its size, beside its text encoder."""

from hypvl.config import LazyCall as L
from hypvl.encoders.mlp_heads import DINOHead

from .clip import model
from .demo import textual, visual

model.visual, model.textual = visual, textual
model.visual.width, model.visual.heads = 64, 2
model.visual_head = L(DINOHead, partial=True)(out_features=128, layers=2, hidden=256, prototypes=None)
model.textual_head.out_features = 128
