"""CLOOB on the demo: hypvl train --config cloob_demo --num-gpus 0 --output-dir output/demo_cloob"""

from .common.objective.cloob import objective as _objective
from .train_clip_demo import dataset, model, optim, train

optim.parameters.trainable = ["model.visual*", "model.textual*"]  # the logit scale has no gradient
train.objective = _objective
