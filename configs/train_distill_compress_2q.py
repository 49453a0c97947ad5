"""CompRess, two memories, a student of CLIP's texts on CC3M.

hypvl train --config distill_compress_2q --num-gpus 8 --output-dir output/compress_2q
"""

from .common.objective.compress_2q import objective as _objective
from .train_distill_simreg import dataset, model, optim, train

train.objective = _objective
train.objective.terms.compress.update(student_dim=1024, teacher_dim=1024)
