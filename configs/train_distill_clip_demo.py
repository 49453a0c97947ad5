"""CLIP of features on the demo: hypvl train --config distill_clip_demo --num-gpus 0 --output-dir output/demo_clip"""

from .common.objective.clip import objective as _objective
from .train_distill_simreg_demo import dataset, model, optim, train

optim.parameters.frozen = ["model.textual*"]  # the scale is learned
train.objective = _objective
