"""CE-CLIP, ViT-B/32: hypvl train --config ceclip_vit_b_32 --num-gpus 4 --output-dir output/ceclip_vit_b_32

A second stage: add train.init_checkpoint=checkpoints/openai_vit_b_32.pt (configs/common/model/clip_vit_b_32.py says
how to get it). Ten epochs of the 414,113 captions; the published evaluations are of the fifth.
"""

from .common.data.coco_negatives import dataset
from .common.model.clip_vit_b_32 import model
from .common.objective.ce_clip import objective as _objective
from .common.optim import optim
from .common.train import train

optim.optimizer.lr, optim.optimizer.eps = 5e-6, 1e-6
optim.parameters.weight_decay, optim.parameters.gain_bias_decay = 0.1, 0.0
optim.parameters.exclude = ["cls_token"]
optim.lr_scheduler.warmup_steps = 50
train.seed, train.amp = 42, "fp16"
train.total_batch_size = 4 * 378
train.num_iterations = 10 * 414_113 // train.total_batch_size
train.checkpoint_period = 414_113 // train.total_batch_size
train.keep_checkpoints = 10
train.objective = _objective
