"""SEED, a student of CLIP's texts on CC3M.

hypvl train --config distill_seed --num-gpus 8 --output-dir output/distill_seed
"""

from .common.objective.seed import objective as _objective
from .train_distill_simreg import dataset, model, optim, train

train.objective = _objective
train.objective.terms.seed.dim = 1024
