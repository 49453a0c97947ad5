"""ProtoCLIP on the demo: hypvl train --config protoclip_demo --num-gpus 0 --output-dir output/demo_protoclip"""

from .common.objective.proto_clip import objective as _objective
from .train_clip_demo import dataset, model, optim, train

train.objective = _objective
train.objective.terms.prototypes.update(
    embed_dim=128, clusters=256, episode=9600, features=64, hidden=256, target_temperature=0.1
)
train.objective.warmup = dict(prototypes=[74, 75])  # the first episode has the contrastive loss alone
