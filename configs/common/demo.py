"""How the demo trains: the recipe of common/optim.py and common/train.py, cut to minutes on two cores."""

from .optim import optim
from .train import train

optim.optimizer.lr = 5e-4
optim.lr_scheduler.warmup_steps = 100
train.num_iterations = 900
train.total_batch_size = 128
train.num_workers = 1
train.grad_clip_norm = 1.0
train.amp = "fp32"
train.checkpoint_period, train.log_period, train.root_samples = 500, 50, 4096
