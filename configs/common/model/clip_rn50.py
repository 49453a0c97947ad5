"""CLIP RN50 as OpenAI published it: attention pooling, a biased image head, quick GELU in the text encoder."""

from .clip_vit_b_32 import model

model.visual.arch, model.visual.norm_eps = "resnet50_clip", "timm"
model.visual_head.out_features = model.textual_head.out_features = 1024
model.visual_head.bias = True
