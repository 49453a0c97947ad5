r"""A ResNet-50 with a logit for each class of ImageNet.

hypvl train --config class_logits_rn50 --num-gpus 8 --output-dir output/class_logits_rn50
"""

from .common.data.imagenet import dataset
from .common.model.clip import model
from .common.objective.class_cross_entropy import objective as _objective
from .common.optim import optim
from .common.train import train

model.visual.arch = "resnet50"
model.visual_head.out_features = 1000
model.textual = model.textual_head = None
dataset.tokenizer.context_length = 77  # captions are made, and not used
optim.optimizer.lr, optim.optimizer.betas = 1e-3, [0.9, 0.999]
optim.parameters.weight_decay, optim.parameters.gain_bias_decay = 0.05, 0.0
optim.parameters.frozen = ["model.scorer*"]  # logits have no scale
train.total_batch_size = 1024
train.num_iterations = 90 * 1_281_167 // 1024  # 90 epochs
train.objective = _objective
