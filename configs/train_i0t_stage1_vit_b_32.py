"""I0T, first stage, ViT-B/32: hypvl train --config i0t_stage1_vit_b_32 --num-gpus 1 --output-dir output/i0t_stage1

Starts from train.init_checkpoint=checkpoints/openai_vit_b_32.pt, as train_longclip_vit_b_32.py does.
Long captions only, with CyCLIP's terms; two epochs of the COCO part of ShareGPT4V.
"""

from .common.objective.cyclip import objective as _objective
from .train_longclip_vit_b_32 import dataset, model, optim, train

dataset.subset = "coco"
optim.optimizer.lr = 1e-4
train.total_batch_size, train.num_iterations = 32, 2 * 118_287 // 32
train.objective = _objective
