"""SimCSE, a text encoder from its own dropout: hypvl train --config simcse --num-gpus 1 --output-dir output/simcse"""

from hypvl.config import LazyCall as L
from hypvl.data.text_lines import TextLines
from hypvl.encoders.mlp_heads import IdentityHead
from hypvl.encoders.text_huggingface import HuggingFaceTextEncoder
from hypvl.training.schedules import half_cosine

from .common.model.clip import model
from .common.objective.simcse import objective as _objective
from .common.optim import optim
from .common.train import train

dataset = L(TextLines)(path="datasets/wiki1m/wiki1m_for_simcse.txt", tokenizer=None)
model.visual = model.visual_head = None
model.textual = L(HuggingFaceTextEncoder)(name="bert-base-uncased", pooler="cls", context_length=32)
model.textual_head = L(IdentityHead, partial=True)()
optim.optimizer.lr, optim.optimizer.betas = 3e-5, [0.9, 0.999]
optim.parameters.weight_decay, optim.parameters.gain_bias_decay = 0.0, 0.0
optim.parameters.frozen = ["model.scorer*"]  # the loss has a scale of its own
optim.lr_scheduler = L(half_cosine, partial=True)(total_steps="${train.num_iterations}", warmup_steps=1)
train.total_batch_size = 64
train.num_iterations = 15_625  # one epoch of a million sentences
train.grad_clip_norm = 1.0
train.objective = _objective
