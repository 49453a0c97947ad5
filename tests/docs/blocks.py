"""The code blocks of a page, and what becomes of each: run by bash, run by Python, written to a file, or only shown."""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.docs.substitutions import NOT_RUN, REPLACED, Rule

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
_FILE = re.compile(r"# ([\w/]+\.py)\n")
#: Languages of blocks that are only shown: layouts of folders, output, data.
SHOWN = ("", "json", "yaml", "text")
# A block without a language in which a line begins like this is one of bash.
_COMMAND = re.compile(r"^(python|hypvl|pip|make|torchrun|pytest|export|srun|sbatch|img2dataset)\s", re.M)


@dataclass(frozen=True)
class Block:
    """One code block."""

    page: str  # README.md, docs/data.md
    line: int  # of its first line of code
    language: str
    text: str

    @property
    def place(self) -> str:
        """For messages."""
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file that the page tells to write, if the block begins with its path."""
        match = _FILE.match(self.text)
        return match[1] if match and self.language == "python" else None

    def commands(self) -> list[str]:
        """The commands of a block of bash, each on one line."""
        joined = re.sub(r"\\\n\s*", "", self.text)
        return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def blocks(page: str) -> list[Block]:
    """All blocks of a page of the repository."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, match.start()) + 2, _language(match[1], match[2]), match[2])
        for match in _BLOCK.finditer(text)
    ]


def _language(written: str, text: str) -> str:
    return "bash" if not written and _COMMAND.search(text) else written


def reason_not_to_run(block: Block, text: str) -> Rule | None:
    """The rule that says why a command, or a block of Python, is not run; None if it is."""
    return next((rule for rule in NOT_RUN if rule.applies(block.page, text)), None)


def substituted(block: Block, text: str) -> str:
    """A command, or a block of Python, as it is run."""
    for rule in REPLACED:
        if rule.applies(block.page, text):
            text = re.sub(rule.pattern, rule.replacement, text)
    return text
