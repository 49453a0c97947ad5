"""Models by name, by config, or from a folder or the Hugging Face hub, with their weights."""

import contextlib
import fnmatch
import json
import re
from collections.abc import Collection, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from hypvl.checks import closest, one_of
from hypvl.config import LazyConfig, instantiate
from hypvl.config.plain import Plain, one_line, to_plain, walk
from hypvl.config.reader import stored_data
from hypvl.encoders.image import without_pretrained_weights
from hypvl.errors import CheckpointError, ConfigError
from hypvl.io.files import write_atomically
from hypvl.io.json_text import parse_json
from hypvl.io.redact import redact_url
from hypvl.io.sharded import is_sharded_checkpoint
from hypvl.io.tensors import write_safetensors
from hypvl.models import open_clip
from hypvl.models.builders import Builder, names_of
from hypvl.models.checkpoint_io import (
    CONFIG_FILE,
    FORMAT_VERSION,
    ROOT_TENSOR,
    WEIGHTS_FILE,
    checkpoints,
    load_without_moments,
)
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.pretrained import WEB, download_weights, find_pretrained
from hypvl.models.weights import load_weights

CONFIG_SUFFIXES = (".py", ".yaml", ".yml", ".json")
CHECKPOINT_SUFFIXES = (".pth", ".pt")
HUB_PREFIX = "hf-hub:"
CARD_FILE = "README.md"


def list_models(pattern: str = "*", *, builder: Builder = "hypvl") -> list[str]:
    """Names of the model definitions that come with hypvl, sorted; of a shell pattern such as ``"meru_*"``.

    With another ``builder`` (``"timm"``, ``"torchvision"``, ``"open_clip"``, ``"huggingface"``,
    ``"sentence_transformers"`` or ``"torch_hub"``) the names that its encoders take, see
    :func:`hypvl.models.builders.names_of`.

    Example:
        >>> list_models("meru_vit_*")
        ['meru_vit_b', 'meru_vit_l', 'meru_vit_s']
    """
    one_of("builder", builder, Builder)
    return fnmatch.filter(names_of(builder), pattern)


def load_config(name_or_config: str | Path | Mapping[str, Any] | DictConfig) -> DictConfig:
    """The config behind a name, with the definition of the model at its key ``model``.

    Args:
        name_or_config: A name of :func:`list_models`; ``"open_clip:<name>"``, a model of open_clip built of our parts
            (:func:`hypvl.models.open_clip.definition`); the path of a training config (``.py``, ``.yaml``,
            ``.json``); a folder written by :func:`save_pretrained`; a checkpoint of a hypvl run, or the run's folder
            (of the config in it, only the model); a config, or the ``model`` node of one. Python configs are code
            and are executed, a DictConfig is taken as it is; YAML, JSON and plain dicts may only name what is on
            the allow-list of ``hypvl.config``.

    Raises:
        ConfigError: Unknown name (the closest is named), missing file, or no model in it.
    """
    if isinstance(name_or_config, Mapping | DictConfig):
        source = "config"
        config = (
            name_or_config if isinstance(name_or_config, DictConfig) else _from_data(name_or_config, source)
        )
    else:
        source = str(name_or_config)
        config = _load_named(source)
    if not isinstance(config, DictConfig):
        raise ConfigError(
            f"{source}: holds a {type(config).__name__}; expected a config with the key `model`."
        )
    if "model" not in config and "_target_" in config:
        return OmegaConf.create({"model": config})
    if "model" not in config:
        raise ConfigError(
            f"{source}: keys {', '.join(map(str, config)) or 'none'}; expected the key `model` with the "
            "definition of a model."
        )
    return config


def create_model(
    name_or_config: str | Path | Mapping[str, Any] | DictConfig,
    checkpoint: str | Path | Mapping[str, Any] | None = None,
    *,
    device: str | torch.device = "cpu",
) -> DualEncoder:
    """Build a model, in evaluation mode.

    With a checkpoint, no pretrained weights of encoders are fetched.

    Args:
        name_or_config: As for :func:`load_config`, or ``"hf-hub:owner/name"`` for the Hugging Face hub, or the web
            address of a checkpoint of hypvl (see :func:`from_pretrained`).
        checkpoint: Weights: a ``.pth`` file of MERU, CLIP, ATMG, HyCoCLIP or hypvl, or a ``.safetensors`` file, or the
            web address of one.
            The folder of a hypvl run means its last checkpoint, here and as the first argument. A dict of
            :func:`load_checkpoint` is taken, too. For ``"open_clip:<name>"`` a file of open_clip, or a tag of its
            pretrained weights (downloaded once).
            None = random weights, except from a folder, the hub or a checkpoint, which bring their own.
        device: Where the model is put.

    Raises:
        ConfigError: The name, the config or the device cannot be used.
        CheckpointError: The weights cannot be read, or do not fit the model.
        DownloadError: A web address does not give them.

    Example:
        >>> model = create_model("clip_vit_s")  # random weights
        >>> model.embed_dim, model.image_size, model.context_length
        (512, 224, 77)
    """
    device = usable_device("device", device)
    if isinstance(checkpoint, str) and checkpoint.startswith(WEB):
        checkpoint = download_weights(checkpoint)
    source = str(name_or_config) if isinstance(name_or_config, str | Path) else "config"
    if source.startswith(open_clip.PREFIX) and not isinstance(checkpoint, Mapping):
        name = source.removeprefix(open_clip.PREFIX)
        name_or_config, checkpoint = (
            open_clip.definition(name, checkpoint),
            open_clip.weights(name, checkpoint),
        )
    elif checkpoint is None and isinstance(name_or_config, str | Path):
        path = Path(name_or_config)
        if source.startswith((HUB_PREFIX, *WEB)) or _is_pretrained_folder(path):
            return from_pretrained(source, device=device)
        if path.suffix in CHECKPOINT_SUFFIXES or path.is_dir():
            checkpoint = load_without_moments(path)
            name_or_config = _config_inside(checkpoint, source)
    model = build_model(load_config(name_or_config), source=source, weights_follow=checkpoint is not None)
    if checkpoint is not None:
        load_weights(model, checkpoint, pixels="known" if source.startswith(open_clip.PREFIX) else "compare")
    return model.to(device).eval()


def build_model(config: DictConfig, *, source: str, weights_follow: bool) -> DualEncoder:
    """Build ``config.model``, with random weights or the pretrained ones its encoders start from.

    Where ``weights_follow``, all weights come from a file next: none are fetched for pretrained encoders.

    Raises:
        ConfigError: It cannot be built, or is not a dual encoder.
    """
    try:
        definition = config.model
    except OmegaConfBaseException as error:  # a reference that leads nowhere
        raise ConfigError(f"{source}: `model` cannot be resolved: {one_line(error)}") from error
    with without_pretrained_weights() if weights_follow else contextlib.nullcontext():
        built = instantiate(definition)
    if not isinstance(built, DualEncoder):
        raise ConfigError(
            f"{source}: `model` builds a {type(built).__name__}; expected a DualEncoder "
            "(_target_: hypvl.models.dual_encoder.DualEncoder)."
        )
    return built


def from_pretrained(
    source: str | Path,
    config: str | Path | Mapping[str, Any] | DictConfig | None = None,
    *,
    revision: str | None = None,
    sha256: str | None = None,
    zoo: str | Path | None = None,
    cache_dir: str | Path | None = None,
    device: str | torch.device = "cpu",
) -> DualEncoder:
    """A model with its weights, in evaluation mode.

    Args:
        source: A folder of :func:`save_pretrained`, or of a training run; a ``.pth``, ``.pt`` or ``.safetensors``
            file; the http(s) address of one, which may end in ``#sha256=<64 hex digits>``; ``"hf-hub:owner/name"``
            or ``"owner/name"`` on the Hugging Face hub; or a name of :func:`hypvl.list_pretrained`. What is
            downloaded is kept, and taken from the cache the next time.
        config: The model of a file without a config in it, as published files are: see :func:`load_config`.
        revision: Branch, tag or commit on the hub.
        sha256: Checksum of the file at an address, in place of the ending.
        zoo: See :func:`hypvl.list_pretrained`; then ``source`` is a name in it.
        cache_dir: Of files at addresses; None = in torch.hub's folder of checkpoints.
        device: Where the model is put.

    Raises:
        CheckpointError: No such folder, repository or file, or files that are missing, broken or do not fit; a name
            whose address is not known.
        ConfigError: The config names something that is not on the allow-list, or there is none; or the device cannot
            be used.
        DownloadError: An address does not give the file, or another one; nothing is kept of it.

    Example:
        >>> from_pretrained("facebook/meru", revision="v1")  # doctest: +SKIP
        >>> from_pretrained("https://example.org/meru_vit_l.pth#sha256=...", "meru_vit_l")  # doctest: +SKIP
    """
    device = usable_device("device", device)
    text, path = str(source), Path(source)
    if text in ("", HUB_PREFIX):
        raise CheckpointError(
            f"source: got {text!r}; expected a folder, a file, a web address or a hub id owner/name."
        )
    web = isinstance(source, str) and text.startswith(WEB)
    named = zoo is not None or (text in list_models() and not path.exists())
    on_hub = not (web or named or path.exists())
    for name, value, fits, only in (
        ("revision", revision, on_hub, "the hub has revisions"),
        ("sha256", sha256, web, "addresses have checksums"),
        ("cache_dir", cache_dir, web or named, "files at addresses are kept there"),
        ("config", config, web or path.is_file(), "files lack one"),
    ):
        if value is not None and not fits:
            raise CheckpointError(f"{name}: got {str(value)[:80]!r} for {source}; only {only}.")
    if named:
        entry = find_pretrained(text, zoo=zoo)
        file = download_weights(str(entry.url), sha256=entry.sha256, cache_dir=cache_dir)
        return create_model(entry.recipe, file, device=device)
    if web:
        path = download_weights(text, sha256=sha256, cache_dir=cache_dir)
    if path.is_file():
        return _from_file(path, config, source=redact_url(text) if web else text, device=device)
    of_a_run = path.is_dir() and not (path / CONFIG_FILE).is_file()
    if of_a_run and (checkpoints(path) or is_sharded_checkpoint(path)):
        return create_model(path, device=device)
    folder = path if path.is_dir() else _download(text.removeprefix(HUB_PREFIX), revision)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{source}: has no {name}; expected {CONFIG_FILE} and {WEIGHTS_FILE}, as save_pretrained writes them."
            )
    return create_model(folder / CONFIG_FILE, folder / WEIGHTS_FILE, device=device)


def usable_device(name: str, value: str | torch.device) -> torch.device:
    """A device that tensors can be put on. Raises ConfigError otherwise, which calls it ``name``."""
    try:
        device = torch.device(value)
        torch.empty(1, device=device)
    # Unknown names and absent GPUs; torch asserts where CUDA was left out.
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"{name}: {str(value)!r} cannot be used ({reason}); expected cpu or cuda."
        ) from error
    return device


def _from_file(
    path: Path,
    config: str | Path | Mapping[str, Any] | DictConfig | None,
    *,
    source: str,
    device: str | torch.device,
) -> DualEncoder:
    """A model of a file of weights, and its config: the given one, or that in the file or beside it."""
    if config is not None:
        return create_model(config, path, device=device)
    content = load_without_moments(path)
    stored = content.get("config")
    own = stored if isinstance(stored, Mapping) else _config_inside(content, source)
    return create_model(own, content, device=device)


def save_pretrained(
    model: DualEncoder,
    config: str | Path | Mapping[str, Any] | DictConfig,
    folder: str | Path,
    *,
    root: Tensor | None = None,
    card: str | None = None,
) -> Path:
    """Write ``config.json`` and ``model.safetensors``, which :func:`from_pretrained` and the hub take.

    Args:
        model: The model.
        config: The config it was built from, as for :func:`load_config`; only its model definition is written.
        folder: Made when missing, and returned; the files in it are replaced.
        root: Mean training embedding of a model whose geometry has no root, (D,).
        card: Text of a model card, written as ``README.md``: see :func:`hypvl.model_card`.

    Raises:
        ConfigError: The definition names something that is not on the allow-list, so it could not be loaded.
        CheckpointError: The definition does not build a model with the names of this one's weights.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = save_pretrained(create_model("clip_vit_s"), "clip_vit_s", folder)
        ...     sorted(path.name for path in written.iterdir())
        ['config.json', 'model.safetensors']
    """
    folder = Path(folder)
    definition = OmegaConf.to_container(load_config(config).model, resolve=True)
    content = {"format_version": FORMAT_VERSION, "model": definition}
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / ".draft.json"
    try:
        draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        with torch.device("meta"):
            expected = build_model(load_config(draft), source="config", weights_follow=True).state_dict()
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        different = {
            name for name in {*expected, *weights} if _shape(expected, name) != _shape(weights, name)
        }
        if different:
            raise CheckpointError(
                f"config: builds another model than the one to save ({', '.join(sorted(different)[:6])} differ); "
                "give the config the model was built from."
            )
        if root is not None:
            weights[ROOT_TENSOR] = root.detach().cpu().contiguous()
        write_safetensors(folder / WEIGHTS_FILE, weights, metadata={"format": "pt"})
        draft.replace(folder / CONFIG_FILE)
        if card is not None:
            write_atomically(folder / CARD_FILE, card)
    finally:
        draft.unlink(missing_ok=True)
    return folder


def stored_config(
    config: str | Mapping[str, Any], *, source: str, parts: Collection[str] = ("model",)
) -> DictConfig:
    """The parts of a config inside a checkpoint that are used, and the parts that they refer to.

    Only they are read, and only they must name targets on the allow-list: a model loads although the objective
    it was trained with is a researcher's own. Nothing is executed. ``config`` is YAML text, or the mapping itself, read
    from ``source``. Parts that are missing are left out.

    Raises:
        ConfigError: No YAML mapping, or a part names a target that is not on the allow-list.
    """
    data = stored_data(config, source=source)
    if not isinstance(data, dict) or "model" not in data:
        return _from_data(data, source)
    kept: dict[str, Any] = {}
    wanted = [part for part in parts if part in data]
    while wanted:
        name = wanted.pop()
        kept[name] = data[name]
        wanted += [other for other in _referred(name, kept[name]) if other in data and other not in kept]
    return LazyConfig.from_dict(kept, source=source)


def _zoo() -> Any:
    return resources.files("hypvl") / "models" / "zoo"


def _load_named(name: str) -> DictConfig:
    if name.startswith(open_clip.PREFIX):
        return _from_data(open_clip.definition(name.removeprefix(open_clip.PREFIX)), name)
    if name in list_models():
        return _from_data(parse_json((_zoo() / f"{name}.json").read_text(encoding="utf-8")), name)
    path = Path(name)
    if path.is_dir() and (path / CONFIG_FILE).is_file():
        path = path / CONFIG_FILE
    if path.suffix in CONFIG_SUFFIXES:
        config = LazyConfig.load(path)
        return config if path.suffix == ".py" else _from_data(to_plain(config, source=name), name)
    if path.suffix in CHECKPOINT_SUFFIXES or path.is_dir():
        return _config_inside(load_without_moments(path), name)
    near = closest(name, list_models(), cutoff=0.0)
    raise ConfigError(
        f"{name}: no model of that name and no config or folder with {CONFIG_FILE}; expected one of "
        f"hypvl.list_models() (closest: {near if near else 'none'}) or a path that ends in "
        f"{', '.join(CONFIG_SUFFIXES)}."
    )


def _from_data(data: Any, source: str) -> DictConfig:
    """A config from data; the bare definition of a model is checked as one."""
    if isinstance(data, Mapping) and "model" not in data and "_target_" in data:
        data = {"model": data}
    return LazyConfig.from_dict(data, source=source)


def _referred(name: str, part: Plain) -> Iterator[str]:
    """Names at the top level that references in a part lead to, as in ``${train.seed}``."""
    for path, text in walk(part, (name,)):
        for reference in re.findall(r"\$\{([^{}]*)\}", text) if isinstance(text, str) else ():
            steps = reference.lstrip(".")
            if len(reference) - len(steps) in (0, len(path)):  # from the root, or dots that lead to it
                yield next((step for step in re.split(r"[.\[\]]", steps) if step), "")


def _config_inside(content: Mapping[str, Any], source: str) -> DictConfig:
    text = content.get("config")
    if not isinstance(text, str):
        raise ConfigError(
            f"{source}: a checkpoint without a config in it, as published files are; expected the name or the "
            f'config of its model first: create_model("meru_vit_l", "{source}").'
        )
    return load_config(stored_config(text, source=f"config in {source}"))


def _is_pretrained_folder(path: Path) -> bool:
    return str(path) not in list_models() and path.is_dir() and (path / CONFIG_FILE).is_file()


def _download(hub_id: str, revision: str | None) -> Path:
    if hub_id.endswith((".pth", ".pt", ".safetensors")):
        raise CheckpointError(f"{hub_id}: no such file; expected a checkpoint (.pth, .pt or .safetensors).")
    if hub_id.count("/") != 1 or hub_id.startswith((".", "/", "~")):
        raise CheckpointError(
            f"{hub_id}: no such folder; expected one with {CONFIG_FILE} and {WEIGHTS_FILE}, or a hub id owner/name."
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(
            snapshot_download(repo_id=hub_id, revision=revision, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE])
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{hub_id}: no such folder, and the hub did not give it ({first}); "
            "check the name, the network, or give a folder."
        ) from error


def _shape(state: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(state[name].shape) if name in state else None
