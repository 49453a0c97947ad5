"""Hyper3-CLIP ViT-B/16: UNCHA's three logit scales, heads with a bias, and images pooled for texts in training.

The text encoder is that of CLIP with OpenAI's quick GELU, as Hugging Face's `CLIPTextModel`. Of the curvature the value
is clamped, not its parameter.
"""

from math import log as _log

from hypvl.config import LazyCall as L
from hypvl.encoders.query_pooling import QueryPooling

from .meru import model

model.visual.arch = "vit_base_patch16_224"
model.textual.activation = "quick_gelu"
model.visual_head.bias = model.textual_head.bias = True
model.geometry.clamp = "value"
model.scorer.further_log_scales = {"local": _log(1 / 0.05), "global_local": _log(1 / 0.06)}
model.scorer.scale_max = None  # published: 100
model.query_pooling = L(QueryPooling, partial=True)(heads=8, mode="conditioned")
