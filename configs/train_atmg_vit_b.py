"""ATMG, ViT-B/16: hypvl train --config atmg_vit_b --num-gpus 8 --output-dir output/atmg_vit_b"""

from .train_atmg_vit_l import dataset, model, optim, train

model.visual.arch = "vit_base_patch16_224"
