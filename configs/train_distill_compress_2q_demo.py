"""CompRess, two memories on the demo.

hypvl train --config distill_compress_2q_demo --num-gpus 0 --output-dir output/2q
"""

from .common.objective.compress_2q import objective as _objective
from .train_distill_simreg_demo import dataset, model, optim, train

train.objective = _objective
train.objective.terms.compress.update(student_dim=128, teacher_dim=128, queue_size=4096)
