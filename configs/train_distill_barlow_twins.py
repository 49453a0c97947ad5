"""python scripts/train.py --config configs/train_distill_barlow_twins.py --num-gpus 8 --output-dir output/bt"""

from .common.objective.barlow_twins import objective as _objective
from .train_distill_simreg import dataset, model, optim, train

train.objective = _objective
