r"""ProtoCLIP with RoBERTa-large as external teacher. It reads other tokens than CLIP: its features are stored first.

hypvl cache-teacher --config protoclip_external_rn50 --output-dir output/roberta
hypvl train --config protoclip_external_rn50 --num-gpus 8 --output-dir output/external \
    '~train.teachers.teacher' \
    '+train.teachers.teacher={_target_: hypvl.training.teacher_cache.CachedTeacher, folder: output/roberta}'
"""

from hypvl.config import LazyCall as L
from hypvl.encoders.mlp_heads import IdentityHead
from hypvl.encoders.text_huggingface import HuggingFaceTextEncoder
from hypvl.training.teachers import FrozenTeacher

from .common.model.clip import model as _teacher
from .train_protoclip_rn50 import dataset, model, optim, train

_teacher.visual = _teacher.visual_head = None
_teacher.textual = L(HuggingFaceTextEncoder)(name="roberta-large", pooler="mean", context_length=77)
_teacher.textual_head = L(IdentityHead, partial=True)()
train.teachers = dict(teacher=L(FrozenTeacher)(model=_teacher, checkpoint=None))
train.objective.terms.prototypes.external = "text@teacher"
