"""The earlier Hyper3-CLIP of the hub (hyper3labs/hyper3-clip-v1): one logit scale, learned positions, averaged tokens.

How it was trained is not published: a model to load its file with (`hyper3clip_v1_vit_b`), not a recipe. Nor does the
file say the epsilon of its image encoder: timm's.
"""

from .meru import model

model.visual.arch = "vit_base_patch16_224"
model.visual.position, model.visual.norm_eps = "learned", "timm"
model.visual.timm_args = {"global_pool": "avg"}
model.textual.activation = "quick_gelu"
model.visual_head.bias = model.textual_head.bias = True
model.geometry.clamp = "value"
