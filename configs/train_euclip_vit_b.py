"""EuCLIP, ViT-B/16: hypvl train --config euclip_vit_b --num-gpus 8 --output-dir output/euclip_vit_b"""

from .common.data.redcaps import dataset
from .common.model.euclip import model
from .common.objective.clip import objective as _objective
from .common.optim import optim
from .common.train import train

model.visual.arch = "vit_base_patch16_224"
train.objective = _objective
