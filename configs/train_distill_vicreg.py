"""python scripts/train.py --config configs/train_distill_vicreg.py --num-gpus 8 --output-dir output/distill_vicreg"""

from .common.objective.vicreg import objective as _objective
from .train_distill_simreg import dataset, model, optim, train

train.objective = _objective
