"""UniCL on the demo: hypvl train --config unicl_demo --num-gpus 0 --output-dir output/demo_unicl"""

from .common.objective.unicl import objective as _objective
from .train_clip_demo import dataset, model, optim, train

dataset.mapper.labels = True  # of digits and of scenes of one object; those of two are pairs like any other
train.objective = _objective
