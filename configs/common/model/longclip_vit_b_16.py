"""Long-CLIP ViT-B/16: OpenAI's model with 248 tokens, of which 20 have fixed positions."""

from .clip_vit_b_32 import model

model.visual.arch = "vit_base_patch16_clip_quickgelu_224"
model.textual.context_length, model.textual.fixed_positions = 248, 20
model.scorer.log_scale_init = 4.6052
