"""DINO on the demo: hypvl train --config dino_demo --num-gpus 0 --output-dir output/demo_dino"""

from hypvl.config import LazyCall as L
from hypvl.data.augment import InModalAugment, Photometric
from hypvl.data.transforms import RandomResizedCrop
from hypvl.training.teachers import EMATeacher

from .common.model.dino import model
from .common.objective.dino_multi_crop import objective as _objective
from .train_clip_demo import dataset, model as _demo, optim, train

model.visual = _demo.visual
model.visual_head.update(out_features=64, layers=2, hidden=256, prototypes=512)
dataset.tokenizer.context_length = 77  # captions are read, and not used
_size = "${model.visual.image_size}"
dataset.augment = L(InModalAugment)(
    crops=[
        L(RandomResizedCrop)(size=_size, scale=scale, augment=L(Photometric)(jitter=0.0, gray=0.0, blur=0.1))
        for scale in ([0.4, 1.0], [0.4, 1.0], [0.1, 0.4], [0.1, 0.4])
    ]
)
optim.parameters.frozen = ["model.scorer*"]  # the loss has temperatures of its own
train.objective = _objective
train.objective.terms.dino.update(student=[f"image:crops.{i}" for i in range(4)], count=512)
train.teachers = dict(
    ema=L(EMATeacher)(momentum=0.99, final_momentum=1.0, total_steps="${train.num_iterations}")
)
