"""UNCHA on the demo: hypvl train --config uncha_demo --num-gpus 0 --output-dir output/demo_uncha"""

from .common.model.uncha import model as _model
from .common.objective.uncha import objective as _objective
from .train_hycoclip_demo import dataset, model, optim, train

model.scorer = _model.scorer
dataset.mapper.boxes, dataset.mapper.max_boxes = "first", 5
# Contrast first, order after, as in train_hycoclip_demo.py, and with its weight of the cones.
_order = [name for name in _objective.terms if name.endswith(("entailment", "calibration", "entropy"))]
for _name in _order:
    if _name.endswith("entailment"):
        _objective.weights[_name] *= 0.5 / 0.2
_objective.warmup = {_name: [300, 600] for _name in _order}
train.objective = _objective
