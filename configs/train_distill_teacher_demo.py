"""Distillation from a teacher on the demo.

hypvl train --config distill_teacher_demo --num-gpus 0 --output-dir output/taught
"""

from hypvl.config import LazyCall as L
from hypvl.training.teachers import FrozenTeacher

from .train_clip_demo import model as _teacher
from .train_distill_simreg_demo import dataset, model, optim, train

_teacher.visual = _teacher.visual_head = None  # it teaches by its texts
train.teachers = dict(
    teacher=L(FrozenTeacher)(model=_teacher, checkpoint="output/demo_clip/checkpoint_final.pth")
)
train.objective.terms.simreg.teacher = "text@teacher"
