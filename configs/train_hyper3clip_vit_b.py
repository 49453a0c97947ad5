"""Hyper3-CLIP, ViT-B/16: hypvl train --config hyper3clip_vit_b --num-gpus 8 --output-dir output/hyper3clip_b"""

from hypvl.config import LazyCall as L
from hypvl.training.schedules import half_cosine

from .common.data.grit_queries import dataset
from .common.model.hyper3clip import model
from .common.objective.hyper3clip import objective as _objective
from .common.optim import optim
from .common.train import train

optim.parameters.gain_bias_decay = 0.0
optim.lr_scheduler = L(half_cosine, partial=True)(total_steps="${train.num_iterations}", warmup_steps=4000)
train.seed = 31
train.num_iterations, train.total_batch_size = 500_000, 768
train.amp, train.grad_clip_norm = "fp16", 1.0
train.objective = _objective
