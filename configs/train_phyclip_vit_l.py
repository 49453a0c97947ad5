"""python scripts/train.py --config configs/train_phyclip_vit_l.py --num-gpus 8 --output-dir output/phyclip_vit_l"""

from .common.model.phyclip import model
from .train_hycoclip_vit_l import dataset, optim, train

# The published run decayed the factors' scalars by accident: [model.geometry.log_curv, model.*_head.log_scale].
optim.parameters.decayed = []
