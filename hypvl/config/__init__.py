"""Lazy configs: what to call is written down first, built later.

A Python config file is code and may name any target. A YAML or JSON config is data: it may only name the
targets listed in ``targets.json`` beside this file (marked by ``hypvl.allowlist.configurable`` where they are defined),
so that loading one never runs arbitrary code.
"""

from hypvl.config.lazy import LazyCall, LazyConfig, instantiate
from hypvl.config.targets import allowed_targets

__all__ = ["LazyCall", "LazyConfig", "allowed_targets", "instantiate"]
