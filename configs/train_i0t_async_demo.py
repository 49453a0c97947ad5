"""python scripts/train.py --config configs/train_i0t_async_demo.py --num-gpus 0 --output-dir output/demo_i0t_async

A second stage on output/demo_clip (train_clip_demo.py): two batch norms, everything else frozen.
"""

from .common.model.i0t_posts import image_post as _image_post, text_post as _text_post
from .common.objective.cyclip import objective as _objective
from .train_clip_demo import dataset, model, optim, train

model.image_post, model.text_post = _image_post, _text_post
optim.parameters.trainable = ["model.image_post.*", "model.text_post.*"]
optim.optimizer.lr = 1e-6
optim.parameters.weight_decay = optim.parameters.gain_bias_decay = 1e-2
optim.lr_scheduler.warmup_steps = 10
train.num_iterations, train.seed = 100, 7
train.init_checkpoint, train.init_missing = (
    "output/demo_clip/checkpoint_final.pth",
    ["image_post.*", "text_post.*"],
)
train.objective = _objective
