"""I0T async on the demo: hypvl train --config i0t_async_demo --num-gpus 0 --output-dir output/demo_i0t_async

A second stage on output/demo_i0t_stage1 (train_i0t_stage1_demo.py): two batch norms, everything else frozen.
"""

from hypvl.config import LazyCall as L
from hypvl.data.transforms import ResizeCenterCrop

from .common.model.i0t_transforms import (
    image_transforms as _image_transforms,
    text_transforms as _text_transforms,
)
from .train_i0t_stage1_demo import dataset, model, optim, train

# As published: nothing random about the images.
dataset.image_transform = L(ResizeCenterCrop)(size="${model.visual.image_size}")
model.image_transforms, model.text_transforms = _image_transforms, _text_transforms
optim.parameters.trainable = ["model.image_transforms.*", "model.text_transforms.*"]
optim.optimizer.lr = 1e-6
optim.parameters.weight_decay = optim.parameters.gain_bias_decay = 1e-2
optim.lr_scheduler.warmup_steps = 10
train.num_iterations, train.seed = 100, 7
train.init_checkpoint = "output/demo_i0t_stage1/checkpoint_final.pth"
train.init_missing = ["model.image_transforms.*", "model.text_transforms.*"]
