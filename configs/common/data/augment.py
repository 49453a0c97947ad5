"""In-modal augmentation (CyCLIP): `dataset.augment = augment` gives any data set augmented images and captions."""

from hypvl.config import LazyCall as L
from hypvl.data.augment import EDA, AutoAugment, InModalAugment

augment = L(InModalAugment)(
    image=L(AutoAugment)(policy="imagenet"), text=L(EDA)(backend="builtin", share=0.1)
)
