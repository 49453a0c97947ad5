"""python scripts/train.py --config configs/train_clip_vit_l.py --num-gpus 8 --output-dir output/clip_vit_l"""

from .common.data.redcaps import dataset
from .common.model.clip import model
from .common.objective.clip import objective as _objective
from .common.optim import optim
from .common.train import train

train.objective = _objective
