"""What README.md and docs/ tell people to type exists: overrides, flags, configs and links."""

import contextlib
import functools
import importlib
import io
import re
import shlex
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hypvl.cli import registry
from hypvl.config import LazyConfig
from hypvl.errors import ConfigError
from tests.test_configs import config

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "datasets/README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
# The configs that take most overrides come first, so that few are loaded.
FIRST = ["train_meru_vit_b", "eval_zero_shot_retrieval", "train_cyclip_vit_b_32", "train_i0t_async_vit_b_32"]
RECIPES = [ROOT / f"configs/{name}.py" for name in FIRST]
RECIPES += sorted(set((ROOT / "configs").glob("*.py")) - set(RECIPES))
# a.b=value, +a.b=value, ~a.b, and the bare key a.b; the first key is a top-level name of configs.
OVERRIDE = re.compile(
    r"(?!\w+\.(py|safetensors|txt|zip|json|onnx|onnx\.data)$)(~|\+{0,2})(train|model|dataset|optim|evaluate|encoding|roots)(\.\w+)+(=.+)?"
)
PLACEHOLDER = re.compile(r"=(PATH|FILE|N|\[?\.\.\.\]?)$")
SPAN = re.compile(r"`([^`\n]+)`")
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.M | re.S)
# Files that a page tells to write begin with their path.
EXAMPLE = re.compile(r"^```python\n# ([\w/]+\.py)\n", re.M)
EXAMPLES = {path for page in PAGES for path in EXAMPLE.findall(page.read_text(encoding="utf-8"))}
LONGEST_LINE = 200
# Words after which `hypvl` is a command, and what it also takes instead of a command's name.
BEFORE_A_COMMAND = ("-m", "$", "&&", ";", "|", "srun", "nohup", "time")
NO_COMMANDS = ("--help", "--version", "COMMAND", "...")
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def typed(page: Path) -> list[list[str]]:
    """The words of each line or piece of code."""
    text = page.read_text(encoding="utf-8")
    if page.name == "migrate.md":  # the first column of its tables is what other programs call it
        text = re.sub(r"^\|[^|\n]*(?=\|)", "", text, flags=re.M)
    code = [line for block in BLOCK.findall(text) for line in re.sub(r"\\\n", " ", block).splitlines()]
    lines = []
    for line in code + SPAN.findall(BLOCK.sub("", text)):
        with contextlib.suppress(ValueError):  # an apostrophe or the like: nothing to type into a shell
            lines.append(shlex.split(line.strip().removeprefix('"""').removesuffix('"""')))
    return lines


def commands(page: Path) -> list[tuple[Path, list[str]]]:
    """The script of each command that is called (``hypvl x``, ``scripts/x.py``), and the words after it."""
    result = []
    for words in typed(page):
        for place, word in enumerate(words):
            if re.fullmatch(r"scripts/\w+\.py", word):
                result.append((ROOT / word, words[place + 1 :]))
            elif word == "hypvl" and place + 1 < len(words) and calls(words[:place]):
                name = words[place + 1]
                command = registry.find(name)
                assert command is not None or name in NO_COMMANDS, f"{page.name}: hypvl {name}"
                if command is not None:
                    result.append((ROOT / f"scripts/{command.module}.py", words[place + 2 :]))
    return result


def calls(before: list[str]) -> bool:
    """Whether ``hypvl`` after these words is the command, and not the name of the package."""
    return not before or before[-1] in BEFORE_A_COMMAND or re.fullmatch(r"[A-Z_]+=.*", before[-1]) is not None


def is_example(path: str) -> bool:
    """Whether ``--config`` names a file that a page tells to write, by its path or its name."""
    return bool(EXAMPLES & {path, f"configs/train_{path}.py", f"configs/eval_{path}.py"})


def recipe(path: str) -> Path:
    """The file that ``--config`` names: a path, or the name of a recipe."""
    names = [path] if "." in path else [f"configs/{prefix}{path}.py" for prefix in ("", "train_", "eval_")]
    found = [ROOT / name for name in names if (ROOT / name).is_file()]
    assert found, path
    return found[0]


def filled_in(override: str) -> str:
    """Something that can be applied: a placeholder becomes null, which every key takes; a bare key is deleted."""
    return PLACEHOLDER.sub("=null", override) if "=" in override else f"~{override.lstrip('~+')}"


@functools.cache
def refusal(override: str) -> str | None:
    """None when some config takes the override, else why the last one did not."""
    reason = "no config has its first key"
    first, *rest = re.split(r"[.=]", override.lstrip("~+").partition("=")[0])
    some = [path for path in RECIPES if first in config(path)]
    having = [
        path for path in some if OmegaConf.select(config(path), ".".join([first, *rest[:-1]])) is not None
    ]
    for path in having or some:  # trying one takes time: first those that have what the key is of
        try:
            LazyConfig.apply_overrides(config(path), [filled_in(override)])
        except ConfigError as error:
            reason = str(error)
        else:
            return None
    return reason


@functools.cache
def flags(script: Path) -> set[str]:
    assert script.is_file(), script
    text = io.StringIO(script.read_text(encoding="utf-8"))
    if "hypvl.cli" in text.getvalue():
        with contextlib.redirect_stdout(io.StringIO()) as text, pytest.raises(SystemExit):
            importlib.import_module(f"hypvl.cli.{script.stem}").main(["--help"])
    return set(re.findall(r"--[a-z][a-z-]*", text.getvalue()))


@every_page
def test_some_config_takes_each_override(page: Path) -> None:
    starting = [words for words in typed(page) if words and OVERRIDE.fullmatch(words[0])]
    written = [word for words in starting if len(words) == 1 or "=" in words[0] for word in words]
    assert not {text: why for text in dict.fromkeys(written) if (why := refusal(text))}


@every_page
def test_the_config_of_a_command_takes_its_overrides(page: Path) -> None:
    for _, words in commands(page):
        if "--config" in words and not is_example(path := words[words.index("--config") + 1]):
            overrides = [filled_in(word) for word in words if OVERRIDE.fullmatch(word)]
            # What names a part of an example is tried by tests/test_docs_extending.py.
            modules = [example.removesuffix(".py").replace("/", ".") for example in EXAMPLES]
            known = [word for word in overrides if not any(f"={module}." in word for module in modules)]
            LazyConfig.apply_overrides(config(recipe(path)), known)


@every_page
def test_scripts_know_their_flags(page: Path) -> None:
    for script, words in commands(page):
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= flags(script), script
    known = set().union(*map(flags, (ROOT / "scripts").glob("*.py")), {"--help", "--save_additional_columns"})
    for module in (ROOT / "hypvl" / "integrations").glob("*.py"):  # with those of the harnesses that it names
        known |= set(re.findall(r"--[a-z][a-z_-]*", module.read_text(encoding="utf-8")))
    assert {words[0] for words in typed(page) if words and words[0].startswith("--")} <= known


@every_page
def test_links_and_paths_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", text)) if "://" not in link]
    paths = set(re.findall(r"\b(?:configs|scripts|hypvl|tests)/[\w/]+\.(?:py|json)\b", text)) - EXAMPLES
    assert not [link for link in links if not _leads_somewhere(page, link)]
    if page.name != "log.md":  # which names files as they were called at the time
        assert not [path for path in paths if not (ROOT / path).exists()]


def _leads_somewhere(page: Path, link: str) -> bool:
    """Whether the file of a link exists, and has the heading that follows the #."""
    place, _, heading = link.partition("#")
    target = page.parent / place if place else page
    return target.exists() and (not heading or heading in anchors(target))


@functools.cache
def anchors(page: Path) -> set[str]:
    """What a link to a heading may name, as GitHub makes it."""
    titles = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@every_page
def test_no_line_is_too_long_to_read(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    too_long = [f"{number}: {len(line)}" for number, line in enumerate(lines, 1) if len(line) > LONGEST_LINE]
    assert not too_long, (
        f"{page.relative_to(ROOT)}: lines above {LONGEST_LINE} characters; make a list of them"
    )
