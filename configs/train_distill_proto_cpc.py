"""ProtoCPC, a student of CLIP's texts on CC3M.

hypvl train --config distill_proto_cpc --num-gpus 8 --output-dir output/proto_cpc
"""

from .common.objective.proto_cpc import objective as _objective
from .train_distill_simreg import dataset, model, optim, train

train.objective = _objective
train.objective.terms.proto_cpc.prototypes = "student"  # the text encoder has none of its own
model.visual_head.prototypes = 65_536
