"""MERU on the demo: hypvl train --config meru_demo --num-gpus 0 --output-dir output/demo_meru"""

from .common.data.demo import dataset
from .common.demo import optim, train
from .common.model.demo import textual as _textual, visual as _visual
from .common.model.meru import model
from .common.objective.meru import objective as _objective

model.visual, model.textual = _visual, _textual
model.visual_head.out_features = model.textual_head.out_features = 128
train.objective = _objective
# In so few steps cones from the start keep the encoders from learning shapes: contrast first, order after.
train.objective.weights.entailment, train.objective.warmup = 0.6, {"entailment": [300, 600]}
