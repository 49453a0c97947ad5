"""UNCHA, ViT-S/16: hypvl train --config uncha_vit_s --num-gpus 8 --output-dir output/uncha_vit_s"""

from .train_uncha_vit_l import dataset, model, optim, train

model.visual.arch = "vit_small_mocov3_patch16_224"
