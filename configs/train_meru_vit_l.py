"""python scripts/train.py --config configs/train_meru_vit_l.py --num-gpus 8 --output-dir output/meru_vit_l"""

from .common.objective.meru import objective
from .common.train import train

train.objective = objective
