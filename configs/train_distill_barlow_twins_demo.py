"""Barlow Twins of images and captions on the demo.

hypvl train --config distill_barlow_twins_demo --num-gpus 0 --output-dir output/bt
"""

from .common.objective.barlow_twins import objective as _objective
from .train_distill_simreg_demo import dataset, model, optim, train

train.objective = _objective
