"""SEED on the demo: hypvl train --config distill_seed_demo --num-gpus 0 --output-dir output/demo_seed"""

from .common.objective.seed import objective as _objective
from .train_distill_simreg_demo import dataset, model, optim, train

train.objective = _objective
train.objective.terms.seed.update(dim=128, queue_size=4096)
