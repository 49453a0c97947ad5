r"""MERU from a pretrained CLIP ViT-B/32 by LoRA, on one small GPU: the towers stay, 0.5 M adapter weights are trained.

hypvl train --config meru_from_clip_lora_vit_b_32 --num-gpus 1 \
    --output-dir output/meru_from_clip_lora

Heads, curvature and scales are trained as in train_meru_from_clip_vit_b_32.py, where the weights come from.
"""

from hypvl.config import LazyCall as L
from hypvl.encoders.adapters.methods import adapted

from .train_meru_from_clip_vit_b_32 import dataset, model, optim, train

for _tower in ("visual_adapter", "textual_adapter"):
    model[_tower] = L(adapted, partial=True)(method="lora_adapter", options=dict(rank=8, alpha=16))
optim.parameters.lr["model.*.adapter.*"] = 2e-4
train.init_missing = [*train.init_missing, "model.*.adapter.*"]
train.grad_cache.micro_batch = 128
