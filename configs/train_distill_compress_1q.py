"""python scripts/train.py --config configs/train_distill_compress_1q.py --num-gpus 8 --output-dir output/compress_1q"""

from .common.objective.compress_1q import objective as _objective
from .train_distill_simreg import dataset, model, optim, train

train.objective = _objective
train.objective.terms.compress.dim = 1024
