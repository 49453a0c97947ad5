"""RKD on the demo: hypvl train --config distill_rkd_demo --num-gpus 0 --output-dir output/demo_rkd"""

from .common.objective.rkd import objective as _objective
from .train_distill_simreg_demo import dataset, model, optim, train

train.objective = _objective
