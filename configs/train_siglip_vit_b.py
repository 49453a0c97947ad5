"""SigLIP, ViT-B/16: hypvl train --config siglip_vit_b --num-gpus 8 --output-dir output/siglip_vit_b"""

from .common.data.redcaps import dataset
from .common.model.siglip import model
from .common.objective.siglip import objective as _objective
from .common.optim import optim
from .common.train import train

model.visual.arch = "vit_base_patch16_224"
optim.parameters.gain_bias_decay = 0.0  # 0.2 would pull the bias of the logits back from -10
train.objective = _objective
