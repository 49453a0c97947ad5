"""DINO ViT-S/16: images of any size, a head of three layers with prototypes, no text encoder."""

from hypvl.config import LazyCall as L
from hypvl.encoders.mlp_heads import DINOHead

from .clip import model

model.visual.arch = "vit_small_patch16_224"
model.visual.position = "learned"
model.visual.timm_args = dict(dynamic_img_size=True)
model.visual_head = L(DINOHead, partial=True)(out_features=256, layers=3, hidden=2048, prototypes=65_536)
model.textual = model.textual_head = None
