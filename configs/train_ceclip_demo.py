"""CE-CLIP on the demo: hypvl train --config ceclip_demo --num-gpus 0 --output-dir output/demo_ceclip"""

from .common.objective.ce_clip import objective as _objective
from .train_clip_demo import dataset, model, optim, train

dataset.mapper.negatives = True
# What stands in for a negative that a sample lacks is its caption here, and digits have none: leave those out.
for _name in ("contrastive", "intra_modal"):
    _objective.terms[_name].invalid_negatives = "mask"
train.objective = _objective
