"""CompRess, one memory, a student of CLIP's texts on CC3M.

hypvl train --config distill_compress_1q --num-gpus 8 --output-dir output/compress_1q
"""

from .common.objective.compress_1q import objective as _objective
from .train_distill_simreg import dataset, model, optim, train

train.objective = _objective
train.objective.terms.compress.dim = 1024
