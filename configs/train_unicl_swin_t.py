"""UniCL, Swin-T: hypvl train --config unicl_swin_t --num-gpus 8 --output-dir output/unicl_swin_t"""

from .common.data.imagenet import dataset
from .common.model.clip import model
from .common.objective.unicl import objective as _objective
from .common.optim import optim
from .common.train import train

model.visual.arch = "swin_tiny_patch4_window7_224"
optim.optimizer.lr, optim.optimizer.betas = 1e-3, [0.9, 0.999]
optim.parameters.weight_decay, optim.parameters.gain_bias_decay = 0.05, 0.0
train.total_batch_size = 4096
train.num_iterations = 300 * 1_281_167 // 4096  # 300 epochs
train.objective = _objective
