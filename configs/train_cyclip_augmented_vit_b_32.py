"""python scripts/train.py --config configs/train_cyclip_augmented_vit_b_32.py --num-gpus 8 --output-dir output/run"""

from .common.data.augment import augment as _augment
from .common.objective.cyclip_augmented import objective as _objective
from .train_cyclip_vit_b_32 import dataset, model, optim, train

dataset.augment = _augment
train.objective = _objective
