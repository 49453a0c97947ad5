"""I0T async, ViT-B/32: hypvl train --config i0t_async_vit_b_32 --num-gpus 2 --output-dir output/i0t_async

The second stage of I0T, on what train_i0t_stage1_vit_b_32.py made: two batch norms, everything else frozen.
Three epochs of the COCO part of ShareGPT4V. From another CLIP ViT-B/32 of 77 tokens: train.init_checkpoint=...
train.init_positions=stretch.
"""

from .common.model.i0t_transforms import (
    image_transforms as _image_transforms,
    text_transforms as _text_transforms,
)
from .train_i0t_stage1_vit_b_32 import dataset, model, optim, train

model.image_transforms, model.text_transforms = _image_transforms, _text_transforms
optim.parameters.trainable = ["model.image_transforms.*", "model.text_transforms.*"]
optim.optimizer.lr = 1e-6
optim.parameters.weight_decay = optim.parameters.gain_bias_decay = 1e-2
optim.lr_scheduler.warmup_steps = 200
train.seed = 7
train.total_batch_size, train.num_iterations = 128, 3 * 118_287 // 128
train.init_checkpoint, train.init_positions = "output/i0t_stage1/checkpoint_final.pth", "exact"
train.init_missing = ["model.image_transforms.*", "model.text_transforms.*"]
