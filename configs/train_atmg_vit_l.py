"""ATMG, ViT-L/16: hypvl train --config atmg_vit_l --num-gpus 8 --output-dir output/atmg_vit_l"""

from .common.data.redcaps import dataset
from .common.model.atmg import model
from .common.objective.clip import objective as _objective
from .common.optim import optim
from .common.train import train

train.objective = _objective
