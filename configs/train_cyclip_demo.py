"""CyCLIP on the demo: hypvl train --config cyclip_demo --num-gpus 0 --output-dir output/demo_cyclip"""

from .common.objective.cyclip import objective as _objective
from .train_clip_demo import dataset, model, optim, train

train.objective = _objective
