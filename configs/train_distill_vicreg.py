"""VICReg of images and captions, a student of CLIP's texts on CC3M.

hypvl train --config distill_vicreg --num-gpus 8 --output-dir output/distill_vicreg
"""

from .common.objective.vicreg import objective as _objective
from .train_distill_simreg import dataset, model, optim, train

train.objective = _objective
