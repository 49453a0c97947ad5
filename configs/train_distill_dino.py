"""DINO of images and captions, a student of CLIP's texts on CC3M.

hypvl train --config distill_dino --num-gpus 8 --output-dir output/distill_dino
"""

from .common.objective.dino import objective as _objective
from .train_distill_simreg import dataset, model, optim, train

train.objective = _objective
train.objective.terms.dino.prototypes = "student"  # the text encoder has none of its own
model.visual_head.prototypes = 65_536
