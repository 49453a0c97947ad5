r"""MERU from a pretrained CLIP ViT-B/32 on images and captions of your own (docs/own_data.md).

hypvl train --config meru_from_clip_pairs --num-gpus 1 \
    --output-dir output/mine_from_clip dataset.path=datasets/mine/pairs.csv
"""

from .common.data.pairs import dataset
from .train_meru_from_clip_vit_b_32 import model, optim, train

train.num_iterations, train.total_batch_size = 2000, 512
optim.lr_scheduler.warmup_steps = 100
