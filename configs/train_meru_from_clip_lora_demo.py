r"""MERU by LoRA from the checkpoint that train_clip_demo.py leaves in output/demo_clip.

hypvl train --config meru_from_clip_lora_demo --num-gpus 0 \
    --output-dir output/demo_meru_from_clip_lora
"""

from hypvl.config import LazyCall as L
from hypvl.encoders.adapters.methods import adapted

from .train_meru_from_clip_demo import dataset, model, optim, train

for _tower in ("visual_adapter", "textual_adapter"):
    model[_tower] = L(adapted, partial=True)(method="lora_adapter", options=dict(rank=8, alpha=16))
optim.parameters.lr["model.*.adapter.*"] = 2e-3
train.init_missing = [*train.init_missing, "model.*.adapter.*"]
