"""RKD, a student of CLIP's texts on CC3M.

hypvl train --config distill_rkd --num-gpus 8 --output-dir output/distill_rkd
"""

from .common.objective.rkd import objective as _objective
from .train_distill_simreg import dataset, model, optim, train

train.objective = _objective
