"""Class logits on the demo: hypvl train --config class_logits_demo --num-gpus 0 --output-dir output/demo_classes"""

from hypvl.data.demo.mapper import DEMO_CLASSES

from .common.objective.class_cross_entropy import objective as _objective
from .train_clip_demo import dataset, model, optim, train

model.visual_head.out_features = len(DEMO_CLASSES)
model.textual = model.textual_head = None
dataset.tokenizer.context_length = 77  # captions are read, and not used
dataset.mapper.labels = True
optim.parameters.frozen = ["model.scorer*"]  # logits have no scale
train.objective = _objective
