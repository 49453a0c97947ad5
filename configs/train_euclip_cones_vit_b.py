r"""EuCLIP whose texts entail their images, in Euclidean cones as wide as MERU's.

hypvl train --config euclip_cones_vit_b --num-gpus 8 --output-dir output/euclip_cones_vit_b
"""

from .common.objective.meru import objective as _objective
from .train_euclip_vit_b import dataset, model, optim, train

model.geometry.min_radius = 0.2
train.objective = _objective
