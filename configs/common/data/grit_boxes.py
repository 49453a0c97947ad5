"""GRIT as UNCHA trains on it: the first five boxes of each image, wide crops, changed colours.

The published config asks for the colour jitter, but its run never applied it:
`dataset.image_transform.augment.jitter=0`.
"""

from hypvl.config import LazyCall as L
from hypvl.data.augment import Photometric

from .grit import dataset

dataset.mapper.boxes, dataset.mapper.max_boxes = "first", 5
dataset.image_transform.scale = [0.8, 1.0]
dataset.image_transform.augment = L(Photometric)(
    flip=0.0, jitter=0.8, strength=[0.4, 0.4, 0.4, 0.1], gray=0.2, blur=0.0, solarize=0.0
)
