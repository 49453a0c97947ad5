"""CyCLIP, ViT-B/32: hypvl train --config cyclip_vit_b_32 --num-gpus 8 --output-dir output/cyclip_vit_b_32"""

from .common.data.cc3m import dataset
from .common.model.clip_vit_b_32 import model
from .common.objective.cyclip import objective as _objective
from .common.optim import optim
from .common.train import train

optim.optimizer.lr = 5e-4
optim.parameters.weight_decay, optim.parameters.gain_bias_decay = 0.1, 0.0
optim.lr_scheduler.warmup_steps = 10_000
train.total_batch_size = 128
train.num_iterations = 64 * 3_318_333 // 128  # 64 epochs of all of CC3M; fewer pairs, fewer iterations
train.objective = _objective
