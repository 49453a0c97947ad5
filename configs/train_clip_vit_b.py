"""CLIP, ViT-B/16: hypvl train --config clip_vit_b --num-gpus 8 --output-dir output/clip_vit_b"""

from .train_clip_vit_l import dataset, model, optim, train

model.visual.arch = "vit_base_patch16_224"
