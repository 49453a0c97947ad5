"""python scripts/train.py --config configs/train_uncha_vit_l.py --num-gpus 8 --output-dir output/uncha_vit_l"""

from .common.data.grit_boxes import dataset
from .common.model.uncha import model
from .common.objective.uncha import objective as _objective
from .train_hycoclip_vit_l import optim, train

train.objective = _objective
