r"""MERU ViT-S on images and captions of your own, from random weights (docs/own_data.md).

hypvl train --config meru_pairs --num-gpus 1 \
    --output-dir output/mine dataset.path=datasets/mine/pairs.csv
"""

from .common.data.pairs import dataset
from .train_meru_vit_s import model, optim, train

train.total_batch_size = 512
