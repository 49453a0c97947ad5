"""CLIP on the demo: hypvl train --config clip_demo --num-gpus 0 --output-dir output/demo_clip"""

from .common.data.demo import dataset
from .common.demo import optim, train
from .common.model.clip import model
from .common.model.demo import textual as _textual, visual as _visual
from .common.objective.clip import objective as _objective

model.visual, model.textual = _visual, _textual
model.visual_head.out_features = model.textual_head.out_features = 128
train.objective = _objective
