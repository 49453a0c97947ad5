"""CyCLIP with augmentation, ViT-B/32.

hypvl train --config cyclip_augmented_vit_b_32 --num-gpus 8 --output-dir output/run
"""

from .common.data.augment import augment as _augment
from .common.objective.cyclip_augmented import objective as _objective
from .train_cyclip_vit_b_32 import dataset, model, optim, train

dataset.augment = _augment
train.objective = _objective
