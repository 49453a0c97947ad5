"""python scripts/train.py --config configs/train_phyclip_vit_b.py --num-gpus 8 --output-dir output/phyclip_vit_b"""

from .common.model.phyclip import model
from .train_hycoclip_vit_l import dataset, optim, train

model.visual.arch = "vit_base_patch16_224"
