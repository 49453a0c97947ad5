"""python scripts/train.py --config configs/train_uncha_vit_b.py --num-gpus 8 --output-dir output/uncha_vit_b"""

from .train_uncha_vit_l import dataset, model, optim, train

model.visual.arch = "vit_base_patch16_224"
