"""Long-CLIP on the demo: hypvl train --config longclip_demo --num-gpus 0 --output-dir output/demo_longclip"""

from .common.objective.long_clip import objective as _objective
from .train_clip_demo import dataset, model, optim, train

dataset.mapper.short = True
dataset.mapper.level_weights = [0.0, 0.0, 0.01, 0.99]  # the longest captions; digits have no level 4
train.objective = _objective
