"""SimCSE on the demo: hypvl train --config simcse_demo --num-gpus 0 --output-dir output/demo_simcse"""

from .common.objective.simcse import objective as _objective
from .train_clip_demo import dataset, model, optim, train

dataset.image_transform.size = 64  # images come with the captions, and are not used
model.visual = model.visual_head = None
model.textual.dropout = 0.1
optim.parameters.frozen = ["model.scorer*"]  # the loss has a scale of its own
train.objective = _objective
