r"""MERU from a pretrained CLIP ViT-B/32 (configs/common/model/clip_vit_b_32.py says how to get its weights).

hypvl train --config meru_from_clip_vit_b_32 --num-gpus 8 \
    --output-dir output/meru_from_clip
"""

from .common.data.redcaps import dataset
from .common.model.meru_from_clip import model
from .common.objective.meru import objective as _objective
from .common.optim import optim
from .common.train import train

_new = [
    "model.geometry.log_curv",
    "model.*_head.log_scale",
    "model.*_head.norm_power",
]  # scalars: not in the file, learned faster
optim.parameters.lr = dict.fromkeys(_new, 5e-4)
optim.optimizer.lr = 1e-5
optim.lr_scheduler.warmup_steps = 500
train.init_checkpoint = "checkpoints/openai_vit_b_32.pt"
train.init_missing = _new
train.num_iterations, train.total_batch_size = 20_000, 1024
train.objective = _objective
