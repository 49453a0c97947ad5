"""python scripts/train.py --config configs/train_distill_seed.py --num-gpus 8 --output-dir output/distill_seed"""

from .common.objective.seed import objective as _objective
from .train_distill_simreg import dataset, model, optim, train

train.objective = _objective
train.objective.terms.seed.dim = 1024
