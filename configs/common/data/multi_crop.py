"""Crops of DINO: `dataset.augment = augment` adds two large ones, `crops.0` and `crops.1`, and eight small ones."""

from hypvl.config import LazyCall as L
from hypvl.data.augment import InModalAugment, Photometric
from hypvl.data.transforms import RandomResizedCrop


def _crop(size: int, scale: list[float], *, blur: float, solarize: float = 0.0) -> dict:
    colors = L(Photometric)(
        flip=0.5, jitter=0.8, strength=[0.4, 0.4, 0.2, 0.1], gray=0.2, blur=blur, solarize=solarize
    )
    return L(RandomResizedCrop)(size=size, scale=scale, augment=colors)


augment = L(InModalAugment)(
    crops=[
        _crop(224, [0.4, 1.0], blur=1.0),
        _crop(224, [0.4, 1.0], blur=0.1, solarize=0.2),
        *[_crop(96, [0.05, 0.4], blur=0.5) for _ in range(8)],
    ]
)
