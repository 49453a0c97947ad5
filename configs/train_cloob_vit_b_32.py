"""CLOOB, ViT-B/32: hypvl train --config cloob_vit_b_32 --num-gpus 8 --output-dir output/cloob_vit_b_32

Beta and temperature of CLOOB's own training command; batch, rates and length are those of train_cyclip_vit_b_32.py.
Learn the temperature: train.objective.terms.cloob.learn_inv_tau=true and "objective.*" in optim.parameters.trainable.
"""

from .common.objective.cloob import objective as _objective
from .train_cyclip_vit_b_32 import dataset, model, optim, train

# The logit scale has no gradient.
optim.parameters.trainable = ["model.visual*", "model.textual*"]
_objective.terms.cloob.beta, _objective.terms.cloob.inv_tau = 8.0, 30.0
train.objective = _objective
