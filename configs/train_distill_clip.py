"""python scripts/train.py --config configs/train_distill_clip.py --num-gpus 8 --output-dir output/distill_clip"""

from .common.objective.clip import objective as _objective
from .train_distill_simreg import dataset, model, optim, train

optim.parameters.frozen = ["model.textual*"]  # the scale is learned
train.objective = _objective
