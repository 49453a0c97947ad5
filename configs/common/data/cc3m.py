"""CC3M as open_clip and CyCLIP list it: a CSV with the columns image and caption, paths from its own folder."""

from hypvl.config import LazyCall as L
from hypvl.data.table import ImageTextTable
from hypvl.data.tokenizer import get_tokenizer
from hypvl.data.transforms import RandomResizedCrop

dataset = L(ImageTextTable)(
    path="datasets/cc3m/train.csv",
    image_column="image",
    caption_column="caption",
    separator=",",
    image_transform=L(RandomResizedCrop)(size="${model.visual.image_size}", scale=[0.5, 1.0]),
    tokenizer=L(get_tokenizer)(context_length="${model.textual.context_length}"),
    shuffle_window=4000,
    max_bad_fraction=0.1,
)
