"""DINO, ViT-S/16: hypvl train --config dino_vit_s --num-gpus 8 --output-dir output/dino_vit_s"""

from hypvl.config import LazyCall as L
from hypvl.training.schedules import half_cosine
from hypvl.training.teachers import EMATeacher

from .common.data.cc3m import dataset
from .common.data.multi_crop import augment as _augment
from .common.model.dino import model
from .common.objective.dino_multi_crop import objective as _objective
from .common.optim import optim
from .common.train import train

dataset.augment, dataset.tokenizer.context_length = _augment, 77  # captions are read, and not used
optim.optimizer.lr, optim.optimizer.betas = 5e-4 * 1024 / 256, [0.9, 0.999]
optim.parameters.weight_decay, optim.parameters.gain_bias_decay = 0.04, 0.0
optim.parameters.frozen = ["model.scorer*"]  # the loss has temperatures of its own
optim.lr_scheduler = L(half_cosine, partial=True)(
    total_steps="${train.num_iterations}", warmup_steps=10 * 3240
)
optim.parameters.weight_decay_end = 0.4
train.total_batch_size, train.num_iterations = 1024, 100 * 3240  # 100 epochs of all of CC3M
train.grad_clip_norm = 3.0
train.objective = _objective
train.objective.terms.dino.update(warmup_steps=30 * 3240, frozen_steps=3240)
train.teachers = dict(
    ema=L(EMATeacher)(momentum=0.996, final_momentum=1.0, total_steps="${train.num_iterations}", warmup=False)
)
