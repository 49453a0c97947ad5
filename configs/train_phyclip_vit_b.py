"""PHyCLIP, ViT-B/16: hypvl train --config phyclip_vit_b --num-gpus 8 --output-dir output/phyclip_vit_b"""

from .train_phyclip_vit_l import dataset, model, optim, train

model.visual.arch = "vit_base_patch16_224"
