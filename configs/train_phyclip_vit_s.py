"""PHyCLIP, ViT-S/16: hypvl train --config phyclip_vit_s --num-gpus 8 --output-dir output/phyclip_vit_s"""

from .train_phyclip_vit_l import dataset, model, optim, train

model.visual.arch = "vit_small_mocov3_patch16_224"
