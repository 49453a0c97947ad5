"""I0T, first stage on the demo.

hypvl train --config i0t_stage1_demo --num-gpus 0 --output-dir output/demo_i0t_stage1
"""

from .common.objective.cyclip import objective as _objective
from .train_clip_demo import dataset, model, optim, train

dataset.mapper.level_weights = [0.0, 0.0, 0.01, 0.99]  # the longest captions; digits have no level 4
train.objective = _objective
