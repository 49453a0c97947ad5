"""SimReg, a student of CLIP's texts on CC3M.

hypvl train --config distill_simreg --num-gpus 8 --output-dir output/distill_simreg
"""

from .common.data.cc3m import dataset
from .common.model.mobilenet_student import model
from .common.objective.simreg import objective as _objective
from .common.optim import optim
from .common.train import train

optim.optimizer.lr, optim.optimizer.betas = 1e-3, [0.9, 0.999]
optim.parameters.weight_decay, optim.parameters.gain_bias_decay = 0.05, 0.0
optim.parameters.frozen = ["model.textual*", "model.scorer*"]  # the text encoder teaches
train.init_checkpoint = "checkpoints/openai_rn50.pt"
train.init_missing = ["model.visual*"]
train.total_batch_size = 1024
train.num_iterations = 30 * 3_318_333 // 1024  # 30 epochs of all of CC3M; fewer pairs, fewer iterations
train.objective = _objective
train.objective.terms.simreg.predictor.update(in_features=1024, out_features=1024)
