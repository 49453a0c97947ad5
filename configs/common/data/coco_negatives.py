"""COCO 2014 training captions with hard negatives: a JSONL file, and the images in their folder.

The file comes from hypvl hard-negatives, or from published ones by hypvl convert-hard-negatives.
"""

from hypvl.config import LazyCall as L
from hypvl.data.negatives import HardNegativeMapper
from hypvl.data.table import ImageTextTable
from hypvl.data.tokenizer import get_tokenizer
from hypvl.data.transforms import RandomResizedCrop

dataset = L(ImageTextTable)(
    path="datasets/coco/negatives_train2014.jsonl",
    images_root="datasets/coco/train2014",
    mapper=L(HardNegativeMapper)(
        types=["relation", "attribute", "object", "action"],
        image_pattern="COCO_train2014_{image_id:012d}.jpg",
        invalid_text="empty",
    ),
    image_transform=L(RandomResizedCrop)(size="${model.visual.image_size}", scale=[0.9, 1.0]),
    tokenizer=L(get_tokenizer)(context_length="${model.textual.context_length}"),
    max_bad_fraction=0.1,
)
