"""Hides secrets of addresses and texts from outside: passwords, tokens, and control characters."""

import re
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote_plus

_HIDDEN = "***"
# Parameters of an address that give access: signed addresses of S3, Google, Azure and CloudFront, tokens, keys.
_SECRET_NAME = re.compile(
    r"token|secret|signature|credential|passw|pwd|passphrase|auth(?!or)|session|jwt|hmac|api[-_]?key|"
    r"access[-_]?key|account[-_]?key|private[-_]?key|key[-_]?pair|accessid|policy|^sig$|^pass$|^code$",
    re.I,
)
# Tokens recognised by their prefix, anywhere in a text.
_SECRET_VALUE = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|AKIA[A-Z0-9]{12,}|"
    r"ASIA[A-Z0-9]{12,}|AIza[\w-]{20,}|xox[abprs]-[\w-]{10,}|sk-[\w-]{20,}|eyJ[\w-]{10,}\.[\w-]+\.?[\w-]*)"
)
_HEADER = re.compile(
    r"(?i)\b((?:proxy-)?authorization\s*[:=]\s*(?:(?:bearer|basic|token)\s+)?)[^\s'\"]+|\b(bearer\s+)[\w.~+/=-]{16,}"
)
# With one slash, too: where an address was taken for a path, two become one.
_URL = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]{0,20}:/[^\s'\"<>\\]+")
_SCHEME = re.compile(r"[^:]*:/{1,2}")
_PARAMETER = re.compile(r"([?&;#])([^=&;#?]+)=([^&;#]*)")
_SECRET_SETTING = re.compile(
    r"(?im)^([ \t+-]*['\"]?(?:[\w.]+[._-])?(?:tokens?|secret|passw(?:or)?d|passphrase|credentials?|api[_-]?key|"
    r"access[_-]?key|private[_-]?key)['\"]?(?:[ \t]*:[ \t]+|=))(?!null\b|~).+$"
)
# Names of keys whose values are hidden wherever they stand, and names of tokens of texts, which are none.
_SECRET_KEY = re.compile(
    r"(?i)(?:.*[._-])?(?:tokens?|secret|passw(?:or)?d|passphrase|credentials?|api[_-]?key|access[_-]?key|private[_-]?key)"
)
_TEXT_TOKEN = re.compile(r"(?i).*(?:pad|mask|cls|sep|sot|eot|bos|eos|sos|unk|special|additional)[_-]tokens?")
# Control characters of terminals, marks that turn the direction of writing, and halves of characters.
_CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def redact_url(url: str) -> str:
    """An address without its secrets: user and password, and the values of tokens and signatures, are ``***``.

    Example:
        >>> redact_url("https://me:pw@host/a.tar?part=2&X-Amz-Signature=ab12")
        'https://***@host/a.tar?part=2&X-Amz-Signature=***'
    """
    if (scheme := _SCHEME.match(url)) is not None:
        rest = url[scheme.end() :]
        end = re.search(r"[/?#]", rest)
        host = rest if end is None else rest[: end.start()]
        if "@" in host:
            rest = f"{_HIDDEN}@{host.rpartition('@')[2]}{rest[len(host) :]}"
        url = f"{scheme[0]}{rest}"
    url = _PARAMETER.sub(_hide_parameter, url)
    return _SECRET_VALUE.sub(_HIDDEN, url)


def redact_text(text: str) -> str:
    """A text as it may be shown or kept: the addresses in it redacted, and tokens and authorization headers.

    For messages of libraries, command lines and settings, which may hold addresses anywhere.

    Example:
        >>> redact_text("GET http://h/x?token=abc failed, Authorization: Bearer abc")
        'GET http://h/x?token=*** failed, Authorization: Bearer ***'
    """
    text = _URL.sub(lambda match: redact_url(match[0]), text)
    text = _HEADER.sub(lambda match: f"{match[1] or match[2]}{_HIDDEN}", text)
    return _SECRET_VALUE.sub(_HIDDEN, text)


def redacted(data: Any) -> Any:
    """Plain data (strings in lists and mappings) as they may be kept, every string through :func:`redact_text`.

    Texts under keys such as ``api_key`` or ``hub_token`` are hidden whole.

    Example:
        >>> redacted({"api_key": "12ab", "pad_token": "<pad>", "urls": ["https://me:pw@host"]})
        {'api_key': '***', 'pad_token': '<pad>', 'urls': ['https://***@host']}
    """
    if isinstance(data, dict):
        return {
            key: _HIDDEN if isinstance(value, str) and value and _is_secret(key) else redacted(value)
            for key, value in data.items()
        }
    if isinstance(data, list | tuple):
        return [redacted(value) for value in data]
    return redact_text(data) if isinstance(data, str) else data


def redact_command(words: Sequence[str]) -> list[str]:
    """A command line as it may be kept: also what follows ``--token``, or stands in ``wandb.api_key=...``.

    Example:
        >>> redact_command(["hypvl", "--hub-token", "abc", "wandb.api_key=12ab", "a=1"])
        ['hypvl', '--hub-token', '***', 'wandb.api_key=***', 'a=1']
    """
    flags = ["", *words]
    return [
        _HIDDEN if before.startswith("--") and _is_secret(before.lstrip("-")) else redact_settings(word)
        for before, word in zip(flags, words, strict=False)
    ]


def _is_secret(key: Any) -> bool:
    """Whether the value of a key is a secret by its name."""
    name = str(key)
    return _SECRET_KEY.fullmatch(name) is not None and _TEXT_TOKEN.fullmatch(name) is None


def map_texts(data: Any, change: Callable[[str], Any]) -> Any:
    """A copy of plain data with every string in its lists and mappings changed; keys stay."""
    if isinstance(data, str):
        return change(data)
    if isinstance(data, dict):
        return {key: map_texts(value, change) for key, value in data.items()}
    return [map_texts(value, change) for value in data] if isinstance(data, list | tuple) else data


def redact_settings(text: str) -> str:
    """A config as YAML text, or an override, that may be shown: also the values of keys such as ``api_key`` are hidden.

    Example:
        >>> redact_settings("wandb:\\n  api_key: 12ab\\n  mode: online")
        'wandb:\\n  api_key: ***\\n  mode: online'
    """
    return redact_text(_SECRET_SETTING.sub(lambda match: f"{match[1]}{_HIDDEN}", text))


def printable(text: str, *, limit: int = 300) -> str:
    r"""A text from outside for one line on a screen: redacted, control characters as ``\x1b``, cut to ``limit``.

    Example:
        >>> printable("a\x1b[31mb")
        'a\\x1b[31mb'
    """
    shown = _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), redact_text(text))
    return shown if len(shown) <= limit else f"{shown[: limit - 3]}..."


def printable_lines(text: str) -> str:
    """A text of several lines as :func:`printable` would show each of them whole: line ends and tabs stay."""
    lines = redact_text(text).split("\n")
    return "\n".join(
        "\t".join(printable(part, limit=len(part) * 10) for part in line.split("\t")) for line in lines
    )


def clean_log() -> None:
    """From here on, log messages of this process are as :func:`printable_lines` shows them, wherever they go."""
    from loguru import logger

    logger.configure(patcher=_clean)


def _clean(record: Any) -> None:
    record["message"] = printable_lines(record["message"])


def _hide_parameter(match: re.Match[str]) -> str:
    mark, name, value = match.groups()
    secret = value and _SECRET_NAME.search(unquote_plus(name))
    return f"{mark}{name}={_HIDDEN}" if secret else match[0]
