"""SigLIP on the demo: hypvl train --config siglip_demo --num-gpus 0 --output-dir output/demo_siglip"""

from .common.data.demo import dataset
from .common.demo import optim, train
from .common.model.demo import textual as _textual, visual as _visual
from .common.model.siglip import model
from .common.objective.siglip import objective as _objective

model.visual, model.textual = _visual, _textual
model.visual_head.out_features = model.textual_head.out_features = 128
optim.parameters.gain_bias_decay = 0.0
train.objective = _objective
