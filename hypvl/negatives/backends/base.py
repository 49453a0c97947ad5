"""What a backend does, and how one is asked for."""

import importlib.metadata
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from hypvl.errors import UserError
from hypvl.negatives.keyed_random import Draws
from hypvl.negatives.tagging import Word


class Request(NamedTuple):
    """A word of a caption that is to be replaced."""

    caption: str
    word: Word
    draws: Draws


class Backend(Protocol):
    """Finds words and proposes others for them. One object a process."""

    def tag(self, captions: Sequence[str]) -> list[list[Word]]:
        """Nouns, adjectives and verbs of each caption, in order."""
        ...

    def replacements(self, requests: Sequence[Request]) -> Sequence[Iterable[str]]:
        """For each request words in the right form, the preferred one first; they contradict the word."""
        ...

    def inflect(self, lemma: str, form: str) -> str | None:
        """The noun in that form ("singular", "plural"); None when it has none."""
        ...


class BackendArguments(Protocol):
    """Which backend: small, hashable, picklable; every process builds its own from it."""

    def identity(self) -> dict[str, str]:
        """What decides the texts: a run only goes on with a backend of the same identity.

        Raises:
            UserError: when a package is missing. Nothing slow is imported.
        """
        ...

    def __hash__(self) -> int: ...

    def build(self) -> Backend:
        """The backend. Raises UserError when a model cannot be loaded."""
        ...


def package_versions(packages: Sequence[str], *, backend: str, extra: str) -> dict[str, str]:
    """The installed versions of packages that a backend needs.

    Raises:
        UserError: naming those that are missing, and the extra that brings them.
    """
    found, missing = {}, []
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        raise UserError(
            f"--backend {backend} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            f"installed; pip install 'hypvl[{extra}]', or use --backend builtin."
        )
    return found
