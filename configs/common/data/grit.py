"""Processed GRIT TAR shards (hypvl prepare-grit): images with boxes and their phrases, random crops."""

from hypvl.config import LazyCall as L
from hypvl.data.grit.mapper import GritMapper
from hypvl.data.shards import ImageTextShards
from hypvl.data.tokenizer import get_tokenizer
from hypvl.data.transforms import RandomResizedCrop

dataset = L(ImageTextShards)(
    tarfiles=["datasets/grit/processed/*.tar"],
    mapper=L(GritMapper)(),
    image_transform=L(RandomResizedCrop)(size="${model.visual.image_size}", scale=[0.5, 1.0]),
    tokenizer=L(get_tokenizer)(context_length="${model.textual.context_length}"),
    shuffle_window=4000,
    max_bad_fraction=0.1,
    allow_pipe=False,
)
