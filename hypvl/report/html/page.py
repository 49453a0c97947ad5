"""The page: templates of this package, with the data of runs as escaped JSON in it."""

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from hypvl.errors import DataError
from hypvl.io.files import write_output
from hypvl.io.json_text import expecting
from hypvl.report.html.answers import Answer, answers
from hypvl.report.html.run_files import DATA_FILE, RunFiles

#: Bytes that a page may have.
MOST_BYTES = 2_000_000
SCRIPTS = ("dom.js", "charts.js", "tables.js", "disk.js", "sphere.js", "examples.js", "main.js")
# "<" ends a script element, the line separators end a line of JavaScript; inside JSON all stand in strings only.
_UNSAFE = re.compile("[<>&\u2028\u2029]")
_DIGITS = 6  # significant, of the numbers on the page


@dataclass(frozen=True)
class Page:
    """A page that was written."""

    path: Path
    bytes: int
    answers: list[Answer]  # empty where nothing is known of the model


def write_page(run: RunFiles, others: Sequence[RunFiles], output: Path) -> Page:
    """Write the page of a run, with the curves and results of others beside it. Raises DataError."""
    with expecting(DATA_FILE, "the data that `hypvl report` writes"):
        answered = [[] if one.model is None else answers(one.model) for one in (run, *others)]
        data: dict[str, Any] = {
            "run": asdict(run),
            "others": [_compared(other) for other in others],
            "answers": [[asdict(answer) for answer in of_one] for of_one in answered],
        }
    text = render(data, title=f"{run.name} · hypvl report").encode()
    if len(text) > MOST_BYTES:
        raise DataError(
            f"--output: the page would have {len(text)} bytes, more than {MOST_BYTES}; draw fewer images (--points) or "
            "compare fewer runs."
        )
    write_output(output, text, flag="--output")
    return Page(output, len(text), answered[0])


def render(data: Mapping[str, Any], *, title: str) -> str:
    """The page's HTML.

    Everything from outside stands in one JSON element, escaped so that no text in it can end it; scripts put it into
    the page as text, never as HTML. The policy in the head allows only the scripts and styles of this package, by their
    digests, and images that are in the page.
    """
    script = "\n".join(_template(name) for name in SCRIPTS)
    style = _template("report.css")
    policy = (
        f"default-src 'none'; img-src data:; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "title": escape(title),
        "policy": policy,
        "style": style,
        "data": json_element(data),
        "script": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _template("report.html"))


def json_element(data: Any) -> str:
    r"""Plain data as JSON for a script element; numbers rounded to six digits, what is not finite null.

    Example:
        >>> json_element({"caption": "</script>", "value": 1 / 3})
        '{"caption":"\\u003c/script\\u003e","value":0.333333}'
    """
    text = json.dumps(_rounded(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text = text.encode("utf-8", "backslashreplace").decode()  # names of files that are not UTF-8
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _rounded(data: Any) -> Any:
    if isinstance(data, float):
        return float(f"{data:.{_DIGITS}g}") if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {str(key): _rounded(value) for key, value in data.items()}
    return [_rounded(value) for value in data] if isinstance(data, list | tuple) else data


def _compared(run: RunFiles) -> dict[str, Any]:
    """What a page shows of another run: no images."""
    kept = {key: value for key, value in asdict(run).items() if key not in ("traversals", "model")}
    model = run.model
    return {
        **kept,
        "model": None if model is None else {"audit": model["audit"], "geometry": model["geometry"]},
    }


def _template(name: str) -> str:
    text = resources.files("hypvl.report.html").joinpath("templates", name).read_text(encoding="utf-8")
    return text.strip() + "\n"


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
