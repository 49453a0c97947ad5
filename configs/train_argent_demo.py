"""ARGENT on the demo: hypvl train --config argent_demo --num-gpus 0 --output-dir output/demo_argent"""

from .common.objective.argent import objective as _objective
from .train_hycoclip_demo import dataset, model, optim, train

_order = [name for name in _objective.terms if name.endswith("entailment")]
for _name in _order:  # contrast first, order after, as in train_hycoclip_demo.py
    _objective.weights[_name] *= 0.5 / 0.2
_objective.warmup = {_name: [300, 600] for _name in _order}
train.objective = _objective
