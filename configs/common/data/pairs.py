"""Images and captions of your own: one table (CSV, TSV, JSON), image paths from its own folder (docs/own_data.md)."""

from hypvl.config import LazyCall as L
from hypvl.data.table import ImageTextTable
from hypvl.data.tokenizer import get_tokenizer
from hypvl.data.transforms import RandomResizedCrop

dataset = L(ImageTextTable)(
    path="datasets/mine/pairs.csv",
    image_transform=L(RandomResizedCrop)(size="${model.visual.image_size}", scale=[0.5, 1.0]),
    tokenizer=L(get_tokenizer)(context_length="${model.textual.context_length}"),
    shuffle_window=4000,
    max_bad_fraction=0.1,
)
