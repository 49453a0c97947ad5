"""Barlow Twins of images and captions, a student of CLIP's texts on CC3M.

hypvl train --config distill_barlow_twins --num-gpus 8 --output-dir output/bt
"""

from .common.objective.barlow_twins import objective as _objective
from .train_distill_simreg import dataset, model, optim, train

train.objective = _objective
