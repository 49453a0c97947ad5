"""UNCHA, ViT-L/16: hypvl train --config uncha_vit_l --num-gpus 8 --output-dir output/uncha_vit_l"""

from .common.data.grit_boxes import dataset
from .common.model.uncha import model
from .common.objective.uncha import objective as _objective
from .train_hycoclip_vit_l import optim, train

train.objective = _objective
