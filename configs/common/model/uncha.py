"""UNCHA ViT-L/16: MERU's model with three logit scales, of which the first, for wholes, also scores at test time."""

from math import log as _log

from .meru import model

model.scorer.further_log_scales = {"local": _log(1 / 0.05), "global_local": _log(1 / 0.06)}
