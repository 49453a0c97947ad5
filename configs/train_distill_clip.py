"""CLIP of features, a student of CLIP's texts on CC3M.

hypvl train --config distill_clip --num-gpus 8 --output-dir output/distill_clip
"""

from .common.objective.clip import objective as _objective
from .train_distill_simreg import dataset, model, optim, train

optim.parameters.frozen = ["model.textual*"]  # the scale is learned
train.objective = _objective
