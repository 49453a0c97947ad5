"""ARGENT, ViT-B/16: hypvl train --config argent_vit_b --num-gpus 8 --output-dir output/argent_vit_b"""

from .common.objective.argent import objective as _objective
from .train_hycoclip_vit_b import dataset, model, optim, train

train.objective = _objective
