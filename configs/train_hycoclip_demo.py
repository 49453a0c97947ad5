"""python scripts/train.py --config configs/train_hycoclip_demo.py --num-gpus 0 --output-dir output/demo_hycoclip"""

from .common.objective.hycoclip import objective as _objective
from .train_meru_demo import dataset, model, optim, train

dataset.mapper.boxes = True
train.objective = _objective
