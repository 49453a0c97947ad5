"""ProtoCLIP's RN50: open_clip's, whose text encoder has the exact GELU."""

from .clip_rn50 import model

model.textual.activation = "gelu"
