"""Published weights: a zoo of names in a JSON file, and files at web addresses, downloaded once and checked."""

import fnmatch
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from loguru import logger

from hypvl.checks import closest
from hypvl.errors import CheckpointError, ConfigError
from hypvl.io.files import file_digest, read_regular
from hypvl.io.json_text import parse_json
from hypvl.io.progress import terminal_bar
from hypvl.io.redact import redact_url
from hypvl.io.remote import DownloadError, download

WEB = ("http://", "https://")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_KEYS = {"recipe", "url", "sha256", "licence", "published_at"}
_FRAGMENT = "sha256="


@dataclass(frozen=True)
class Pretrained:
    """An entry of a zoo."""

    name: str
    recipe: str  # the model: a name of ``hypvl.list_models()``, or the path of a config that is data
    url: str | None  # of the file; None = not known
    sha256: str | None  # of the file, hex; None = not known
    licence: str | None  # of the weights; None = not known
    published_at: str | None  # the page where the authors publish them


def list_pretrained(pattern: str = "*", *, zoo: str | Path | None = None) -> dict[str, Pretrained]:
    """Published weights by name, sorted; of a shell pattern such as ``"meru_*"``.

    Args:
        pattern: Of names.
        zoo: A JSON file of your own, name -> ``{"recipe", "url", "sha256", "licence", "published_at"}``, of which only
            ``recipe`` must be there; None = the one that comes with hypvl.

    Raises:
        ConfigError: The file is not such a JSON file.

    Example:
        >>> list_pretrained("meru_*")["meru_vit_l"].published_at
        'https://github.com/facebookresearch/meru'
    """
    if zoo is None:
        text = (resources.files("hypvl") / "models" / "pretrained.json").read_text(encoding="utf-8")
    else:
        try:
            text = read_regular(Path(zoo)).decode("utf-8")
        except (OSError, ValueError) as error:
            raise ConfigError(f"zoo: {zoo} cannot be read ({error}); expected a JSON file.") from error
    place = "pretrained.json" if zoo is None else str(zoo)
    try:
        content = parse_json(text)
    except ValueError as error:
        raise ConfigError(f"{place}: is not JSON ({error}); expected an object of names.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{place}: holds a {type(content).__name__}; expected an object of names.")
    entries = {name: _entry(name, fields, place) for name, fields in sorted(content.items())}
    return {name: entries[name] for name in fnmatch.filter(entries, pattern)}


def find_pretrained(name: str, *, zoo: str | Path | None = None) -> Pretrained:
    """The entry of a name, whose file has an address.

    Raises:
        ConfigError: No such name; the closest is named.
        CheckpointError: The address of its file is not known; the page of the authors is named.
    """
    entries = list_pretrained(zoo=zoo)
    if name not in entries:
        near = closest(name, entries, cutoff=0.0)
        raise ConfigError(
            f"{name}: no such name in {zoo or 'the zoo of hypvl'} (closest: {near if near else 'none'}); see "
            "hypvl.list_pretrained()."
        )
    entry = entries[name]
    if entry.url is None:
        where = entry.published_at or "a place that hypvl does not know"
        licence = entry.licence or "not given: ask the authors"
        raise CheckpointError(
            f"{name}: hypvl knows no address of this file; the authors publish it at {where} (licence: {licence}). "
            f'Download it, then hypvl.from_pretrained(FILE, "{entry.recipe}").'
        )
    return entry


def download_weights(url: str, *, sha256: str | None = None, cache_dir: str | Path | None = None) -> Path:
    """The file at a web address, downloaded once.

    Args:
        url: http or https, of a ``.pth``, ``.pt`` or ``.safetensors``; may end in ``#sha256=<64 hex digits>``.
        sha256: The checksum of the file, in place of the ending. None = not checked: a warning names the checksum.
        cache_dir: Where it is kept; None = ``hypvl`` in torch.hub's folder of checkpoints.

    Returns:
        The path of the file. Only a file with the right checksum is ever there.

    Raises:
        ConfigError: No checksum of 64 hex digits, or two that differ.
        DownloadError: The server does not give it, its checksum is another, or it is a web page or something else that
            cannot be weights; no file is left.
        UnwritableError: It cannot be written.
    """
    address, wanted = _address(url, sha256)
    folder = Path(torch.hub.get_dir(), "checkpoints", "hypvl") if cache_dir is None else Path(cache_dir)
    name = re.sub(r"[^\w.-]", "_", re.split(r"[?#]", address)[0].rpartition("/")[2])[-100:]
    # Another checksum is another file, so that nobody gets an old one.
    mark = hashlib.sha256(f"{address} {wanted}".encode()).hexdigest()[:12]
    target = folder / f"{mark}-{name}"
    if target.is_file() and wanted is not None and file_digest(target, "sha256") != wanted:
        logger.warning("{}: damaged since it was downloaded; downloading it again", target)
        target.unlink()
    if not target.is_file():
        with terminal_bar(name, unit="bytes") as move_bar:
            download(address, target, sha256=wanted, progress=partial(_move, move_bar))
        if wanted is None:
            _check_begin(target, redact_url(address))
            logger.warning(
                "{}: no checksum was given; the file that came has #sha256={}",
                redact_url(address),
                file_digest(target, "sha256"),
            )
    return target


def _check_begin(file: Path, address: str) -> None:
    """Remove a file that holds no weights: kept, it would be taken for them at the next call, too."""
    with file.open("rb") as content:
        begin = content.read(16)
    # the archive of torch.save, and the pickle it once wrote
    is_torch = begin.startswith((b"PK\x03\x04", b"\x80"))
    is_safetensors = begin[8:9] == b"{" and int.from_bytes(begin[:8], "little") < file.stat().st_size
    if is_torch or is_safetensors:
        return
    file.unlink()
    page = begin.lstrip().startswith(b"<")
    raise DownloadError(
        f"{address}: gave {'a web page' if page else f'what begins with {begin!r}'}, not weights; it was deleted. "
        "Expected the address of a .pth, .pt or .safetensors file itself."
    )


def _move(move_bar: Any, there: int, total: int | None) -> None:
    move_bar(there, total)


def _address(url: str, sha256: str | None) -> tuple[str, str | None]:
    """The address without its ending, and the checksum of either."""
    address, _, fragment = url.partition("#")
    shown = redact_url(address)
    if fragment and not fragment.startswith(_FRAGMENT):
        raise ConfigError(f"{shown}: ends in #{fragment[:40]}; expected #sha256=<64 hex digits>, or nothing.")
    given = [text for text in (fragment.removeprefix(_FRAGMENT) or None, sha256) if text is not None]
    if fragment == _FRAGMENT:
        given.append("")
    for text in given:
        if not _SHA256.fullmatch(text):
            raise ConfigError(f"{shown}: sha256 is {text[:80]!r}; expected 64 hex digits.")
    digests = {text.lower() for text in given}
    if len(digests) > 1:
        raise ConfigError(f"{shown}: the address and the argument sha256 differ; give one of them.")
    return address, digests.pop() if digests else None


def _entry(name: str, fields: Any, place: str) -> Pretrained:
    if (
        not isinstance(fields, Mapping)
        or not set(fields) <= _KEYS
        or not isinstance(fields.get("recipe"), str)
    ):
        raise ConfigError(
            f"{place}: {name} is {str(fields)[:200]}; expected an object with the key recipe, and of the keys "
            f"{', '.join(sorted(_KEYS))} only."
        )
    texts: dict[str, str | None] = {}
    for key in sorted(_KEYS):
        value = fields.get(key)
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"{place}: {name}.{key} is {value!r}; expected a text or null.")
        texts[key] = value
    if texts["url"] is not None and not texts["url"].startswith(WEB):
        raise ConfigError(f"{place}: {name}.url is {texts['url']!r}; expected http:// or https://.")
    recipe = str(texts.pop("recipe"))
    if recipe.endswith(".py"):
        raise ConfigError(
            f"{place}: {name}.recipe is {recipe!r}, which is code, and a zoo is data; expected a name of "
            f"hypvl.list_models(), or a config in YAML or JSON."
        )
    return Pretrained(name, recipe, **texts)
