r"""ProtoCLIP with the texts of train_clip_demo.py's model as external teacher.

hypvl train --config protoclip_external_demo --num-gpus 0 --output-dir output/external
"""

from hypvl.config import LazyCall as L
from hypvl.training.teachers import FrozenTeacher

from .train_clip_demo import model as _teacher
from .train_protoclip_demo import dataset, model, optim, train

_teacher.visual = _teacher.visual_head = None  # it teaches by its texts
train.teachers = dict(
    teacher=L(FrozenTeacher)(model=_teacher, checkpoint="output/demo_clip/checkpoint_final.pth")
)
train.objective.terms.prototypes.update(external="text@teacher", external_clusters=256)
