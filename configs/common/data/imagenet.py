"""ImageNet-1k in class folders, with labels, and captions by CLIP's 80 templates."""

from hypvl.config import LazyCall as L
from hypvl.data.augment import Photometric
from hypvl.data.tokenizer import get_tokenizer
from hypvl.data.transforms import RandomResizedCrop
from hypvl.datasets.classification.folders import imagenet
from hypvl.datasets.classification.prompts import imagenet_templates
from hypvl.datasets.prompted import PromptedImages

dataset = L(PromptedImages)(
    images=L(imagenet)(root="datasets/imagenet", split="train"),
    prompts=L(imagenet_templates)(),
    image_transform=L(RandomResizedCrop)(
        size="${model.visual.image_size}",
        scale=[0.08, 1.0],
        augment=L(Photometric)(flip=0.5, jitter=0.0, gray=0.0, blur=0.0),
    ),
    tokenizer=L(get_tokenizer)(context_length="${model.textual.context_length}"),
    shuffle_window=2_000_000,  # all of it: class folders follow one another
    max_bad_fraction=0.1,
)
