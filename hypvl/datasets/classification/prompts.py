"""Prompts of zero-shot classification."""

import contextlib
import importlib.util
import runpy
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.errors import ConfigError, UserError
from hypvl.io.json_text import parse_json

#: For a set that has no prompts of its own.
GENERIC_TEMPLATES: tuple[str, ...] = (
    "a photo of a {}.",
    "an image of a {}.",
    "a picture of a {}.",
    "a close-up photo of a {}.",
    "a photo of the {}.",
    "a photo of one {}.",
    "a {} in a photo.",
)


@configurable("evaluate", "dataset")
def generic_templates() -> list[str]:
    """A few templates that suit most sets."""
    return list(GENERIC_TEMPLATES)


@configurable("evaluate", "dataset")
def imagenet_templates() -> list[str]:
    """The 80 templates that CLIP was evaluated with on ImageNet, from open_clip."""
    return [template("{}") for template in _open_clip_metadata()["OPENAI_IMAGENET_TEMPLATES"]]


def imagenet_class_names() -> list[str]:
    """Names of the 1,000 ImageNet classes in the order of their WordNet ids, from open_clip."""
    return list(_open_clip_metadata()["IMAGENET_CLASSNAMES"])


def _open_clip_metadata() -> dict[str, Any]:
    """open_clip's file of names and templates, without the seconds that importing all of open_clip takes.

    Raises:
        UserError: when open_clip is not installed.
    """
    package = importlib.util.find_spec("open_clip")
    if package is None or package.origin is None:
        raise UserError(
            "ImageNet's names and prompts: open_clip is not installed; pip install open_clip_torch."
        )
    return runpy.run_path(str(Path(package.origin).with_name("zero_shot_metadata.py")))


@configurable("evaluate", "dataset")
def set_templates(name: str, *, style: str = "clip") -> list[str]:
    """Templates for a known data set, with ``{}`` for the name: those of prompts.json, of ImageNet open_clip's.

    Args:
        style: ``"clip"`` or ``"subreddit"`` (``"subreddit : caption"``).

    Raises:
        ConfigError: for a set or style that has none.
    """
    if style == "clip" and name == "imagenet":
        return imagenet_templates()
    content = parse_json(files(__package__).joinpath("prompts.json").read_text("utf-8"))
    styles = [key for key in content if key != "about"]
    if style not in styles:
        raise ConfigError(f"prompts of {name!r}: got style {style!r}; expected one of {', '.join(styles)}.")
    if name not in content[style]:
        raise ConfigError(
            f"prompts of {name!r}: there are none of style {style!r}; expected one of {', '.join(content[style])}, "
            "or write prompts into the config."
        )
    return list(content[style][name]["templates"])


@configurable("evaluate", "dataset")
def prompt_sets(name: str, *, kind: Literal["regimes", "single"] = "regimes") -> dict[str, list[str]]:
    """Several sets of prompts for a known data set, to see how much a result depends on them.

    - ``regimes``: ``name`` (the name alone), ``photo`` ("a photo of a {}."), ``generic`` (:data:`GENERIC_TEMPLATES`),
      ``clip`` and ``subreddit`` (those of :func:`set_templates`, where the data set has them);
    - ``single``: each template of ``clip`` alone, called by itself.

    Raises:
        ValueError: for another kind.
        ConfigError: for a set without templates.
    """
    one_of("kind", kind, ("regimes", "single"))
    own = set_templates(name)
    if kind == "single":
        return {template: [template] for template in own}
    sets = {"name": ["{}"], "photo": ["a photo of a {}."], "generic": generic_templates(), "clip": own}
    with contextlib.suppress(ConfigError):
        sets["subreddit"] = set_templates(name, style="subreddit")
    return sets


def fill(template: str, name: str) -> str:
    """Put a class name in place of ``{}`` (or ``{c}``, as WebDataset classification sets write it).

    Raises:
        ValueError: for a template with no place for the name.
    """
    if "{}" not in template and "{c}" not in template:
        raise ValueError(
            f"prompt template {template!r}: has no place for the class name; write {{}} or {{c}}."
        )
    # Not str.format: names and templates may hold other braces.
    return name.join(part.replace("{c}", name) for part in template.split("{}"))


def class_prompts(
    prompts: Sequence[str] | Mapping[str, Sequence[str]], classes: Sequence[str]
) -> list[list[str]]:
    """The prompts of each class, in the order of ``classes``.

    Args:
        prompts: Templates for all classes, or whole prompts by class name.
        classes: Class names.

    Raises:
        ValueError: when there are none, or none for a class.
    """
    if isinstance(prompts, Mapping):
        missing = [name for name in classes if not prompts.get(name)]
        if missing:
            raise ValueError(
                f"prompts: none for class {missing[0]!r} ({len(missing)} classes); give each at least one."
            )
        return [list(prompts[name]) for name in classes]
    if not prompts:
        raise ValueError("prompts: got none; expected at least one template such as 'a photo of a {}.'.")
    return [[fill(template, name) for template in prompts] for name in classes]
