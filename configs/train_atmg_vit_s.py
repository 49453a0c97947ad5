"""ATMG, ViT-S/16: hypvl train --config atmg_vit_s --num-gpus 8 --output-dir output/atmg_vit_s"""

from .train_atmg_vit_l import dataset, model, optim, train

model.visual.arch = "vit_small_mocov3_patch16_224"
