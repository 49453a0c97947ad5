"""CyCLIP with augmentation on the demo.

hypvl train --config cyclip_augmented_demo --num-gpus 0 --output-dir output/run
"""

from .common.data.augment import augment as _augment
from .common.objective.cyclip_augmented import objective as _objective
from .train_clip_demo import dataset, model, optim, train

dataset.augment = _augment
train.objective = _objective
