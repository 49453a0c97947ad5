"""Hyper3-CLIP on the demo: hypvl train --config hyper3clip_demo --num-gpus 0 --output-dir output/demo_hyper3clip"""

from hypvl.config import LazyCall as L
from hypvl.data.query_mapper import QueryMapper

from .common.model.demo import textual as _textual, visual as _visual
from .common.model.hyper3clip import model
from .common.objective.hyper3clip import objective as _objective
from .train_hycoclip_demo import dataset, optim, train

model.visual, model.textual = _visual, _textual
model.visual_head.out_features = model.textual_head.out_features = 128
model.textual.activation = "quick_gelu"
dataset.mapper.boxes, dataset.mapper.max_boxes = "random", 5
dataset.mapper = L(QueryMapper)(mapper=dataset.mapper, boxes=True, max_queries=6, max_phrases=30)
_order = [name for name in _objective.terms if name.endswith(("entailment", "calibration"))]
_objective.warmup = {
    _name: [300, 600] for _name in _order
}  # contrast first, order after, as in train_meru_demo.py
train.objective = _objective
