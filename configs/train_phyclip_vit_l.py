"""PHyCLIP, ViT-L/16: hypvl train --config phyclip_vit_l --num-gpus 8 --output-dir output/phyclip_vit_l"""

from .common.model.phyclip import model
from .train_hycoclip_vit_l import dataset, optim, train

# The published run decayed the factors' scalars by accident: [model.geometry.log_curv, model.*_head.log_scale].
optim.parameters.decayed = []
