"""GRIT as Hyper3-CLIP trains on it: at most five random boxes of each image, and the queries of its caption.

Crops and colours are those of UNCHA's data; here the colour jitter was applied in the published run, too.
"""

from hypvl.config import LazyCall as L
from hypvl.data.query_mapper import QueryMapper

from .grit_boxes import dataset

dataset.mapper.boxes, dataset.mapper.max_boxes = "random", 5
dataset.mapper = L(QueryMapper)(mapper=dataset.mapper, boxes=True, max_queries=6, max_phrases=30)
