"""SigLIP ViT-L/16: CLIP whose logits also have a learned bias; scale and bias start at 10 and -10."""

import math

from .clip import model

model.scorer.bias_init = -10.0
model.scorer.log_scale_init = math.log(10)
