"""CLIP RN50x4 as OpenAI published it: 288 pixels, a text encoder of width 640."""

from .clip_rn50 import model

model.visual.arch, model.visual.image_size = "resnet50x4_clip", 288
model.textual.arch = "L12_W640"
model.visual_head.out_features = model.textual_head.out_features = 640
