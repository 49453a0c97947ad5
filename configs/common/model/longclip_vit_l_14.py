"""Long-CLIP ViT-L/14: OpenAI's model with 248 tokens, of which 20 have fixed positions."""

from .longclip_vit_b_16 import model

model.visual.arch = "vit_large_patch14_clip_quickgelu_224"
model.textual.arch = "L12_W768"
model.visual_head.out_features = model.textual_head.out_features = 768
