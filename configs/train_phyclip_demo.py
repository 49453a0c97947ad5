"""PHyCLIP on the demo: hypvl train --config phyclip_demo --num-gpus 0 --output-dir output/demo_phyclip"""

from .common.model.demo import textual as _textual, visual as _visual
from .common.model.phyclip import model
from .train_hycoclip_demo import dataset, optim, train

model.visual, model.textual = _visual, _textual
model.visual_head.out_features = model.textual_head.out_features = 128
model.geometry.factors = model.visual_head.factors = model.textual_head.factors = 16
