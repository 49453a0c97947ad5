"""DINO of images and captions on the demo.

hypvl train --config distill_dino_demo --num-gpus 0 --output-dir output/demo_dino
"""

from .common.objective.dino import objective as _objective
from .train_distill_simreg_demo import dataset, model, optim, train

train.objective = _objective
train.objective.terms.dino.update(prototypes="student", count=1024)
model.visual_head.prototypes = 1024
