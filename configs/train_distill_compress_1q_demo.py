"""CompRess, one memory on the demo.

hypvl train --config distill_compress_1q_demo --num-gpus 0 --output-dir output/1q
"""

from .common.objective.compress_1q import objective as _objective
from .train_distill_simreg_demo import dataset, model, optim, train

train.objective = _objective
train.objective.terms.compress.update(dim=128, queue_size=4096)
