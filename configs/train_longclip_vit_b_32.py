"""Long-CLIP, ViT-B/32: hypvl train --config longclip_vit_b_32 --num-gpus 8 --output-dir output/longclip_b_32

A second stage: add train.init_checkpoint=checkpoints/openai_vit_b_32.pt (configs/common/model/clip_vit_b_32.py says
how to get it), or any CLIP ViT-B/32 of 77 tokens: its positions are stretched to 248.
One epoch of all of ShareGPT4V at Long-CLIP's batch; I0T's copy of it has 32, and a rate of 1e-4.
"""

from .common.data.share_gpt4v import dataset
from .common.model.clip_vit_b_32 import model
from .common.objective.long_clip import objective as _objective
from .common.optim import optim
from .common.train import train

dataset.subset = None
model.textual.context_length, model.textual.fixed_positions = 248, 20
model.scorer.log_scale_init = 4.6052
optim.optimizer.lr = 1e-6
optim.parameters.weight_decay = optim.parameters.gain_bias_decay = 1e-2
optim.lr_scheduler.warmup_steps = 200
train.total_batch_size, train.num_iterations = 2048, 1_246_000 // 2048
train.init_positions = "stretch"
train.objective = _objective
