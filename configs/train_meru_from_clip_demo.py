r"""MERU from the checkpoint that train_clip_demo.py leaves in output/demo_clip.

hypvl train --config meru_from_clip_demo --num-gpus 0 \
    --output-dir output/demo_meru_from_clip
"""

from .common.model.demo import textual as _textual, visual as _visual
from .common.model.meru_from_clip import model
from .train_meru_demo import dataset, optim, train

model.visual, model.textual = _visual, _textual
model.visual_head.out_features = model.textual_head.out_features = 128
_new = [
    "model.geometry.log_curv",
    "model.*_head.log_scale",
    "model.*_head.norm_power",
]  # scalars: not in the file, learned faster
optim.parameters.lr = dict.fromkeys(_new, 2e-3)
optim.optimizer.lr = 1e-4
optim.lr_scheduler.warmup_steps = 20
train.init_checkpoint = "output/demo_clip/checkpoint_final.pth"
train.init_missing = _new
train.num_iterations, train.objective.warmup = 300, None
