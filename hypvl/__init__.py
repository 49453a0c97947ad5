"""hypvl: hyperbolic and Euclidean vision-language models.

The names below are imported on first use, so that ``import hypvl`` needs neither torch nor a second of time.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_LAZY = {
    "create_model": "hypvl.models.hub",
    "create_model_and_transforms": "hypvl.api",
    "encode_shard": "hypvl.per_shard",
    "from_pretrained": "hypvl.models.hub",
    "grit_shard": "hypvl.data.grit.prepare",
    "list_models": "hypvl.models.hub",
    "list_pretrained": "hypvl.models.pretrained",
    "load_checkpoint": "hypvl.models.checkpoint_io",
    "load_weights": "hypvl.models.weights",
    "model_card": "hypvl.report.model_card",
    "negatives_shard": "hypvl.negatives.per_shard",
    "push_to_hub": "hypvl.api",
    "save_pretrained": "hypvl.models.hub",
    "get_tokenizer": "hypvl.data.tokenizer",
}
__all__ = ["__version__", *sorted(_LAZY)]

if TYPE_CHECKING:
    from hypvl.api import (
        create_model_and_transforms as create_model_and_transforms,
        push_to_hub as push_to_hub,
    )
    from hypvl.data.grit.prepare import grit_shard as grit_shard
    from hypvl.data.tokenizer import get_tokenizer as get_tokenizer
    from hypvl.models.checkpoint_io import load_checkpoint as load_checkpoint
    from hypvl.models.hub import (
        create_model as create_model,
        from_pretrained as from_pretrained,
        list_models as list_models,
        save_pretrained as save_pretrained,
    )
    from hypvl.models.pretrained import list_pretrained as list_pretrained
    from hypvl.models.weights import load_weights as load_weights
    from hypvl.negatives.per_shard import negatives_shard as negatives_shard
    from hypvl.per_shard import encode_shard as encode_shard
    from hypvl.report.model_card import model_card as model_card


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'hypvl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
