"""ProtoCLIP, ResNet-50: hypvl train --config protoclip_rn50 --num-gpus 8 --output-dir output/protoclip_rn50"""

from hypvl.config import LazyCall as L
from hypvl.data.augment import Photometric
from hypvl.training.schedules import half_cosine

from .common.data.cc3m import dataset
from .common.model.protoclip_rn50 import model
from .common.objective.proto_clip import objective as _objective
from .common.optim import optim
from .common.train import train

dataset.image_transform.augment = L(Photometric)(
    flip=0.5, jitter=0.2, strength=[0.8, 0.8, 0.8, 0.2], gray=0.2, blur=0.2
)
optim.optimizer.lr, optim.optimizer.betas = 5e-4, [0.9, 0.999]
optim.parameters.weight_decay, optim.parameters.gain_bias_decay = 0.5, 0.0
optim.parameters.exclude = ["*objective.*"]  # the projection heads of the loss
optim.lr_scheduler = L(half_cosine, partial=True)(total_steps="${train.num_iterations}", warmup_steps=15_625)
train.objective = _objective
train.objective.terms.prototypes.embed_dim = 1024
train.total_batch_size = 512
train.num_iterations = 400 * 390  # episodes of 390 steps
train.objective.warmup = dict(prototypes=[389, 390])  # the first episode has the contrastive loss alone
train.grad_clip_norm = 10.0
