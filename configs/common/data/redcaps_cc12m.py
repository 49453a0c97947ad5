"""RedCaps and CC12M read together: seven samples of RedCaps for three of CC12M, exactly, in every ten positions."""

from hypvl.config import LazyCall as L
from hypvl.data.mappers import GenericMapper
from hypvl.data.mix import MixedSources
from hypvl.data.shards import ImageTextShards
from hypvl.data.tokenizer import get_tokenizer
from hypvl.data.transforms import RandomResizedCrop

from .redcaps import dataset as _redcaps

_cc12m = L(ImageTextShards)(
    tarfiles=["datasets/cc12m/*.tar"],
    mapper=L(GenericMapper)(),
    image_transform=L(RandomResizedCrop)(size="${model.visual.image_size}", scale=[0.5, 1.0]),
    tokenizer=L(get_tokenizer)(context_length="${model.textual.context_length}"),
)

dataset = L(MixedSources)(
    sources={"redcaps": _redcaps, "cc12m": _cc12m},
    mix={"redcaps": 0.7, "cc12m": 0.3},
    max_bad_fraction=0.1,
)
