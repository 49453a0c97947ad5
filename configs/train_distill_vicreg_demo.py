"""VICReg of images and captions on the demo.

hypvl train --config distill_vicreg_demo --num-gpus 0 --output-dir output/demo_vicreg
"""

from .common.objective.vicreg import objective as _objective
from .train_distill_simreg_demo import dataset, model, optim, train

train.objective = _objective
