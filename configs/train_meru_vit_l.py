"""MERU, ViT-L/16: hypvl train --config meru_vit_l --num-gpus 8 --output-dir output/meru_vit_l"""

from .common.data.redcaps import dataset
from .common.model.meru import model
from .common.objective.meru import objective as _objective
from .common.optim import optim
from .common.train import train

train.objective = _objective
