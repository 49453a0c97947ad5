"""HyCoCLIP on the demo: hypvl train --config hycoclip_demo --num-gpus 0 --output-dir output/demo_hycoclip"""

from .common.objective.hycoclip import objective as _objective
from .train_meru_demo import dataset, model, optim, train

dataset.mapper.boxes = "one"
# A phrase is more general than the caption it is part of: captions of scenes, phrases of one object, its shape first.
dataset.mapper.level_weights = [0.0, 0.06, 0.47, 0.47]
dataset.mapper.box_level_weights = [0.06, 0.56, 0.38, 0.0]
_order = [name for name in _objective.terms if name.endswith("entailment")]
for _name in _order:  # contrast first, order after, as in train_meru_demo.py
    _objective.weights[_name] = 0.5 * 0.5
_objective.warmup = {_name: [300, 600] for _name in _order}
train.objective = _objective
