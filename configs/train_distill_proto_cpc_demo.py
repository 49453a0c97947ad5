"""ProtoCPC on the demo: hypvl train --config distill_proto_cpc_demo --num-gpus 0 --output-dir output/proto_cp"""

from .common.objective.proto_cpc import objective as _objective
from .train_distill_simreg_demo import dataset, model, optim, train

train.objective = _objective
train.objective.terms.proto_cpc.update(prototypes="student", count=1024)
model.visual_head.prototypes = 1024
