"""UNCHA, ViT-B/16: hypvl train --config uncha_vit_b --num-gpus 8 --output-dir output/uncha_vit_b"""

from .train_uncha_vit_l import dataset, model, optim, train

model.visual.arch = "vit_base_patch16_224"
