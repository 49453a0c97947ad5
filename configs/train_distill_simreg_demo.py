"""SimReg on the demo: hypvl train --config distill_simreg_demo --num-gpus 0 --output-dir output/demo_simreg"""

from .common.model.demo_student import model
from .common.objective.simreg import objective as _objective
from .train_clip_demo import dataset, optim, train

optim.parameters.frozen = ["model.textual*", "model.scorer*"]  # the text encoder teaches
train.init_checkpoint = "output/demo_clip/checkpoint_final.pth"  # of train_clip_demo.py
train.init_missing = ["model.visual*"]
train.objective = _objective
train.objective.terms.simreg.predictor.update(in_features=128, out_features=128, hidden=256)
