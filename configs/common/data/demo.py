"""The demo data that `make demo` draws: digits and scenes together."""

from hypvl.config import LazyCall as L
from hypvl.data.demo.mapper import DemoMapper
from hypvl.data.shards import ImageTextShards
from hypvl.data.tokenizer import get_tokenizer
from hypvl.data.transforms import RandomResizedCrop

dataset = L(ImageTextShards)(
    tarfiles=["datasets/demo/train/*.tar"],
    mapper=L(DemoMapper)(level_weights=[0.06, 0.56, 0.22, 0.16]),
    image_transform=L(RandomResizedCrop)(size="${model.visual.image_size}", scale=[0.9, 1.0]),
    tokenizer=L(get_tokenizer)(context_length="${model.textual.context_length}"),
    shuffle_window=8192,  # all of it: the digits fill two of eight shards
    max_bad_fraction=0.1,
)
