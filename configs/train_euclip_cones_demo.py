r"""EuCLIP with Euclidean entailment cones, on the demo.

hypvl train --config euclip_cones_demo --num-gpus 0 --output-dir output/demo_euclip_cones
"""

from .common.objective.meru import objective as _objective
from .train_euclip_demo import dataset, model, optim, train

model.geometry.min_radius = 0.2
train.objective = _objective
# Contrast first, order after, as in train_meru_demo.py.
train.objective.weights.entailment, train.objective.warmup = 0.5, {"entailment": [300, 600]}
