"""python scripts/train.py --config configs/train_clip_demo.py --num-gpus 0 --output-dir output/demo_clip"""

from .common.data.demo import dataset
from .common.model.clip import model
from .common.model.demo import textual as _textual, visual as _visual
from .common.objective.clip import objective as _objective
from .common.optim import optim
from .common.train import train

model.visual, model.textual = _visual, _textual
model.visual_head.out_features = model.textual_head.out_features = 128

optim.optimizer.lr = 5e-4
optim.lr_scheduler.warmup_steps = 100
train.objective = _objective
train.num_iterations = 900
train.total_batch_size = 128
train.num_workers = 1
train.grad_clip_norm = 1.0
train.amp = "fp32"
train.checkpoint_period, train.log_period, train.root_samples = 500, 50, 4096
