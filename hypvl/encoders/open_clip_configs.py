"""What open_clip knows of its models by name: architecture, image preprocessing, pretrained weights."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

from hypvl.checks import closest, one_of
from hypvl.data.transforms import Interpolation
from hypvl.data.transforms_library import OpenClipResize, OpenClipTransform
from hypvl.errors import ConfigError, UserError
from hypvl.io.json_text import parse_json

Config = dict[str, Any]
CONFIG_FILE = "open_clip_config.json"
# Names that open_clip gives its weights, in the order it prefers them.
WEIGHTS_FILES = (
    "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth", "model.safetensors",
)  # fmt: skip
# open_clip's transform is of this kind where its registry says nothing.
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
# Parts of names of tokenizers, and the id they fill rows with; the first that fits counts.
_PADDING = {"siglip2": 0, "siglip": 1, "xlm": 1, "roberta": 1, "nllb": 1}


class Preprocessing(NamedTuple):
    """How open_clip makes images for a model."""

    mean: tuple[float, ...]  # per channel, of pixels in [0, 1]
    std: tuple[float, ...]
    interpolation: Interpolation
    resize_mode: OpenClipResize
    fill_color: int = 0  # of what "longest" fills


def architecture(name: str, pretrained: str | Path | None = None) -> Config:
    """open_clip's config of a model, a copy: ``embed_dim, vision_cfg, text_cfg`` and a few more keys.

    Args:
        name: As open_clip takes it: ``"ViT-B-32"``, ``"local-dir:<folder>"`` or ``"hf-hub:owner/name"``.
        pretrained: A tag of pretrained weights: the GELU is the one they were trained with. Anything else changes
            nothing.

    Raises:
        ConfigError: for another name (the closest is named), or a folder or repository without a config.
    """
    import open_clip

    if not isinstance(name, str) or not name:
        raise ConfigError(f"model: got {name!r}; expected a name of open_clip, for example ViT-B-32.")
    folder = folder_of(name)
    config = open_clip.get_model_config(name) if folder is None else _stored(folder).get("model_cfg")
    if not isinstance(config, Mapping) or not {"embed_dim", "vision_cfg", "text_cfg"} <= set(config):
        near = closest(name, open_clip.list_models(), cutoff=0.0)
        raise ConfigError(
            f"{name}: no model of open_clip; the closest name is {near}; open_clip.list_models() lists all."
            if folder is None
            else f"{name}: {CONFIG_FILE} has no model_cfg of embed_dim, vision_cfg and text_cfg."
        )
    config = dict(config)
    if is_tag(name, pretrained) and "timm_model_name" not in config["vision_cfg"]:
        config["quick_gelu"] = bool(open_clip.get_pretrained_cfg(name, str(pretrained)).get("quick_gelu"))
    return config


def has_own_vocabulary(config: Config) -> bool:
    """Whether the tokenizer is another one than CLIP's."""
    text = config["text_cfg"]
    return bool(text.get("hf_tokenizer_name") or text.get("tokenizer_kwargs"))


def text_padding(config: Config) -> int:
    """Id with which open_clip's tokenizer of a model fills rows; 0 but for a few vocabularies."""
    tokenizer = str(config["text_cfg"].get("hf_tokenizer_name") or "").lower()
    for part, pad in _PADDING.items():
        if part in tokenizer:
            return pad
    return int(config["text_cfg"].get("pad_id", 0))


def is_tag(name: str, pretrained: str | Path | None) -> bool:
    """Whether ``pretrained`` is the tag of weights that open_clip lists for this model."""
    import open_clip

    return isinstance(pretrained, str) and bool(open_clip.get_pretrained_cfg(name, pretrained))


def preprocessing(name: str, pretrained: str | Path | None = None) -> Preprocessing:
    """Pixel statistics and interpolation: of the tag, else what most tags of the model have, else OpenAI's."""
    import open_clip

    folder = folder_of(name)
    if folder is not None:
        return _preprocessing(_stored(folder).get("preprocess_cfg") or {})
    tags = open_clip.list_pretrained_tags_by_model(name)
    if is_tag(name, pretrained):
        tags = [str(pretrained)]
    said = Counter(_preprocessing(open_clip.get_pretrained_cfg(name, tag)) for tag in tags)
    return said.most_common(1)[0][0] if said else _preprocessing({})


def evaluation_transform(name: str, pretrained: str | Path | None, *, size: int) -> OpenClipTransform:
    """The transform with which open_clip evaluates a model; arguments as :func:`preprocessing`, size in pixels."""
    seen = preprocessing(name, pretrained)
    return OpenClipTransform(
        size, resize_mode=seen.resize_mode, interpolation=seen.interpolation, fill_color=seen.fill_color
    )


def pretrained_tags(name: str) -> list[str]:
    """Tags of the pretrained weights of a model. ConfigError for a name that open_clip does not know."""
    import open_clip

    architecture(name)
    return list(open_clip.list_pretrained_tags_by_model(name))


def weights_file(name: str, pretrained: str | Path) -> Path:
    """The file of pretrained weights: of a tag (downloaded once, then taken from the cache), else a path.

    Raises:
        ConfigError: neither a file nor a tag of that model; the closest tag is named.
        UserError: the weights cannot be fetched.
    """
    import open_clip

    if not is_tag(name, pretrained):
        if Path(pretrained).is_file():
            return Path(pretrained)
        tags = open_clip.list_pretrained_tags_by_model(name)
        near = closest(str(pretrained), tags, cutoff=0.0)
        raise ConfigError(
            f"{pretrained}: no file, and no pretrained weights of open_clip's {name}; "
            + (f"the closest tag is {near}." if near else "it has none, give a file.")
        )
    config = open_clip.get_pretrained_cfg(name, str(pretrained))
    try:
        return Path(open_clip.download_pretrained(config))
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{name}, {pretrained}: open_clip could not fetch the weights ({_first_line(error)}); go online once, "
            "or give a file."
        ) from error


def own_weights(name: str) -> Path | None:
    """The weights in a folder or repository; None for a plain name, whose weights have tags.

    Raises:
        ConfigError: the folder or repository has none.
    """
    folder = folder_of(name)
    if folder is None:
        return None
    found = [folder / file for file in WEIGHTS_FILES if (folder / file).is_file()]
    if not found:
        raise ConfigError(f"{name}: has no weights of open_clip; expected one of {', '.join(WEIGHTS_FILES)}.")
    return found[0]


def folder_of(name: str) -> Path | None:
    """The folder of ``"local-dir:<folder>"``, or of the downloaded ``"hf-hub:owner/name"``; None for a plain name.

    Raises:
        ConfigError: there is no such folder, or it has no config.
        UserError: the repository cannot be fetched.
    """
    scheme, _, place = name.partition(":")
    if scheme == "local-dir":
        folder = Path(place)
    elif scheme == "hf-hub":
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        try:
            folder = Path(snapshot_download(repo_id=place, allow_patterns=[CONFIG_FILE, *WEIGHTS_FILES]))
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise UserError(
                f"{name}: the hub did not give it ({_first_line(error)}); check the name and the network."
            ) from error
    else:
        return None
    if not (folder / CONFIG_FILE).is_file():
        raise ConfigError(f"{name}: has no {CONFIG_FILE}; expected a folder as open_clip writes it.")
    return folder


def _stored(folder: Path) -> Mapping[str, Any]:
    content = parse_json((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    return content if isinstance(content, Mapping) else {}


def _preprocessing(config: Mapping[str, Any]) -> Preprocessing:
    mode = str(config.get("resize_mode") or "shortest")
    return Preprocessing(
        _per_channel(config.get("mean", OPENAI_MEAN)),
        _per_channel(config.get("std", OPENAI_STD)),
        "bilinear" if config.get("interpolation") == "bilinear" else "bicubic",
        cast(OpenClipResize, one_of("preprocess_cfg.resize_mode", mode, get_args(OpenClipResize))),
        int(config.get("fill_color") or 0),
    )


def _per_channel(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in values) if isinstance(values, list | tuple) else (float(values),) * 3


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
