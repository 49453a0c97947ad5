"""HyCoCLIP, ViT-L/16: hypvl train --config hycoclip_vit_l --num-gpus 8 --output-dir output/hycoclip_vit_l"""

from .common.data.grit import dataset
from .common.objective.hycoclip import objective as _objective
from .train_meru_vit_l import model, optim, train

train.total_batch_size = 768
train.num_iterations = 500_000
train.objective = _objective
