"""Checks whether TAR shards are whole, and whether their samples hold an image and a text."""

from collections import Counter
from dataclasses import dataclass, field

from hypvl.data.mappers import IMAGE_EXTENSIONS
from hypvl.data.shards import expand_shards
from hypvl.data.storage import FileHandles, open_source
from hypvl.data.tar_index import MemberError, ReadAhead, build_index, read_members
from hypvl.errors import DataError
from hypvl.io.images import ImageError, decode_image
from hypvl.io.json_text import parse_json

_TEXTS = ("json", "txt", "caption", "cls")


@dataclass
class ShardReport:
    """What a TAR holds."""

    place: str  # path or URL
    samples: int = 0
    looked_at: int = 0  # how many were read and decoded
    extensions: dict[str, int] = field(default_factory=dict)  # members by extension, over all samples
    problems: list[str] = field(default_factory=list)  # what is wrong, one sentence each


def check_shards(tarfiles: str, *, look_at: int | None = 4) -> list[ShardReport]:
    """Walk the headers of TARs, and decode ``look_at`` samples of each, evenly spread; None = all.

    They are named as in a training config. Raises DataError when there is no such file.
    """
    handles = FileHandles()
    return [_check(place, handles, look_at) for place in expand_shards(tarfiles)]


def _check(place: str, handles: FileHandles, look_at: int | None) -> ShardReport:
    report = ShardReport(place)
    try:
        source = open_source(place, handles)
        index = build_index(ReadAhead(source.read, source.block), source.size(), place)
    except (DataError, OSError) as error:
        report.problems.append(str(error))
        return report
    report.samples = len(index)
    report.extensions = dict(Counter(name for i in range(len(index)) for name, _, _ in index.members(i)))
    if index.damage is not None:
        report.problems.append(f"{place}: {index.damage}; download it again.")
    if len(index) == 0:
        report.problems.append(f"{place}: holds no samples; expected an image and a text each.")
        return report
    count = len(index) if look_at is None else min(look_at, len(index))
    for i in [n * len(index) // count for n in range(count)]:
        if index.damage is not None and not index.members(i):
            continue  # stands for what was lost, reported above
        report.looked_at += 1
        try:
            problem = _problem(read_members(source.read, index, i))
        except MemberError as error:
            problem = f"{error}."
        except (DataError, OSError) as error:
            problem = str(error)
        if problem is not None:
            report.problems.append(f"{place}, sample {index.key(i)}: {problem}")
    return report


def _problem(members: dict[str, bytes]) -> str | None:
    image = next((members[name] for name in members if name in IMAGE_EXTENSIONS), None)
    text = next((name for name in members if name in _TEXTS), None)
    if image is None or text is None:
        lacking = "image" if image is None else "text"
        return f"has no {lacking}; found {', '.join(members)}."
    try:
        decode_image(image)
        parse_json(members[text]) if text == "json" else members[text].decode("utf-8")
    except ImageError as error:
        return f"{error}."
    except ValueError as error:
        return f"its .{text} cannot be read ({error})."
    return None
