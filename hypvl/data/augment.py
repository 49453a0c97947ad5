"""A second version of each sample: an augmented image and an augmented caption (in-modal pairs, as CyCLIP).

Everything random comes from the generator of the sample; the main generators are never touched.
"""

import functools
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import AutoAugment as _TorchvisionAutoAugment, AutoAugmentPolicy

from hypvl.allowlist import configurable
from hypvl.checks import number, one_of
from hypvl.errors import UserError

#: (uint8 (3, H, W), generator of the sample) -> uint8 (3, H, W)
ImageAugment: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]
#: (caption, generator of the sample) -> caption
TextAugment: TypeAlias = Callable[[str, torch.Generator], str]
Operation: TypeAlias = Literal["synonym", "insert", "swap", "delete"]
Backend: TypeAlias = Literal["builtin", "wordnet"]
Policy: TypeAlias = Literal["imagenet", "cifar10", "svhn"]

# Words without content of their own: they are never replaced by a synonym.
_FUNCTION_WORDS = frozenset(
    """
    a about above after again all an and any are as at be because been before being below between both but by can
    did do does doing down during each few for from further had has have having he her here hers him his how i if in
    into is it its itself just me more most my no nor not now of off on once only or other our out over own same she
    so some such than that the their them then there these they this those through to too under until up very was we
    were what when where which while who whom why will with you your
    """.split()  # noqa: SIM905
)


@configurable("dataset")
@dataclass(frozen=True)
class InModalAugment:
    """What a data set adds to its samples: ``augmented_image``, ``augmented_text`` and ``crops``.

    Args:
        image: Changes an image after the data set's own transform (a crop of its own); None = no image.
        text: Changes a caption; None = no caption.
        crops: Transforms of the image, each of which adds a view: ``crops.0``, ``crops.1`` ..., of any sizes.

    Raises:
        ValueError: when there is none of the three.

    Source: CyCLIP, Goel et al. 2022 (arXiv 2205.14459), section 4 (in-modal augmentation); crops: DINO, Caron et al.
        2021 (arXiv 2104.14294), section 3.1 (multi-crop).
    Differs: the crop is augmented, not the whole image before the crop: the same operations with magnitudes
        relative to the crop, at its cost. Captions are augmented anew each time, not once when they are loaded.
    """

    image: ImageAugment | None = None
    text: TextAugment | None = None
    crops: Sequence[Callable[[Tensor, torch.Generator], Tensor]] = ()

    def __post_init__(self) -> None:
        if self.image is None and self.text is None and not self.crops:
            raise ValueError(
                "augment: got neither image nor text nor crops; give at least one, or no augment at all."
            )

    def __repr__(self) -> str:
        # Part of the data's fingerprint: what is not there is not named, so that older runs resume.
        crops = f", crops={list(self.crops)}" if self.crops else ""
        return f"InModalAugment(image={self.image!r}, text={self.text!r}{crops})"


@configurable("dataset")
class AutoAugment:
    """torchvision's AutoAugment by a published ``policy``, with every draw from the given generator.

    Source: Cubuk et al. 2019 (arXiv 1805.09501).
    """

    def __init__(self, policy: Policy = "imagenet") -> None:
        self.policy = one_of("policy", policy, Policy)
        self._drawn = _Drawn(AutoAugmentPolicy(policy))

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """uint8 (3, H, W) -> uint8 (3, H, W)."""
        self._drawn.generator = generator
        try:
            return self._drawn(image)
        finally:
            self._drawn.generator = None

    def __repr__(self) -> str:
        return f"AutoAugment(policy={self.policy!r})"


class _Drawn(_TorchvisionAutoAugment):
    """All that torchvision draws for an image, drawn from ``generator``."""

    generator: torch.Generator | None = None

    def get_params(self, transform_num: int) -> tuple[int, Tensor, Tensor]:
        assert self.generator is not None
        policy = int(torch.randint(transform_num, (1,), generator=self.generator))
        probabilities = torch.rand((2,), generator=self.generator)
        return policy, probabilities, torch.randint(2, (2,), generator=self.generator)


@configurable("dataset")
@dataclass(frozen=True)
class Photometric:
    """Flip, colour jitter, grayscale, blur and solarisation of an image, each with a probability.

    Args:
        flip: Probability of a mirrored image.
        jitter: Probability of changed colours.
        strength: Of brightness, contrast, saturation (>= 0) and hue (0 to 0.5).
        gray: Probability of no colours.
        blur: Probability of a Gaussian blur, whose deviation is drawn from 0.1 to 2 pixels.
        solarize: Probability of inverting what is brighter than half.

    Raises:
        ValueError: for numbers out of range.

    Source: SimCLR, Chen et al. 2020 (arXiv 2002.05709), appendix A; solarisation: BYOL, Grill et al. 2020
        (arXiv 2006.07733), appendix B. By torchvision, with every draw from the given generator.
    """

    flip: float = 0.5
    jitter: float = 0.8
    strength: Sequence[float] = (0.4, 0.4, 0.2, 0.1)
    gray: float = 0.2
    blur: float = 0.5
    solarize: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "jitter", "gray", "blur", "solarize"):
            number(name, getattr(self, name), least=0, most=1)
        strength = tuple(number("strength", value, least=0) for value in self.strength)
        if len(strength) != 4 or strength[3] > 0.5:
            raise ValueError(
                f"strength: got {list(self.strength)}; expected four numbers, the last (hue) at most 0.5."
            )
        object.__setattr__(self, "strength", strength)

    @functools.cached_property
    def _operations(self) -> Callable[[Tensor], Tensor]:
        from torchvision.transforms import v2

        brightness, contrast, saturation, hue = self.strength
        return v2.Compose(
            [
                v2.RandomHorizontalFlip(self.flip),
                v2.RandomApply([v2.ColorJitter(brightness, contrast, saturation, hue)], self.jitter),
                v2.RandomGrayscale(self.gray),
                v2.RandomApply([v2.GaussianBlur(21, (0.1, 2.0))], self.blur),
                v2.RandomSolarize(128, self.solarize),
            ]
        )

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """uint8 (3, H, W) -> uint8 (3, H, W)."""
        seed = int(torch.randint(2**62, (), generator=generator))
        with torch.random.fork_rng(devices=[]):  # the operations draw from the global generator
            torch.manual_seed(seed)
            return self._operations(image)


@configurable("dataset")
class EDA:
    """Easy data augmentation of a caption: one operation, drawn evenly, on a share of its words.

    ===========  ===========================================================================================
    synonym      that many different content words become synonyms of theirs (WordNet only)
    insert       that many times a word goes in at a random place: a synonym of a content word (WordNet), or
                 another copy of a word of the caption (built in)
    swap         that many times two words change places
    delete       each word goes with that probability; one stays
    ===========  ===========================================================================================

    A caption that an operation cannot change (one word, no synonym known) stays as it is.

    Args:
        backend: ``"builtin"`` needs nothing and knows no synonyms; ``"wordnet"`` takes them from NLTK's WordNet
            corpus, which must be there (``pip install nltk``, ``python -m nltk.downloader wordnet``).
        share: Share of words to change, in (0, 1]; at least one.
        operations: Which to draw from; None = all that the backend has.

    Raises:
        ValueError: for an unknown backend or operation, ``synonym`` without WordNet, or a share out of range.
        UserError: when WordNet is asked for and not there.

    Source: Wei and Zou 2019 (arXiv 1901.11196), section 2.
    """

    def __init__(
        self,
        *,
        backend: Backend = "builtin",
        share: float = 0.1,
        operations: Sequence[Operation] | None = None,
    ) -> None:
        self.backend = one_of("backend", backend, Backend)
        known = [name for name in get_args(Operation) if backend == "wordnet" or name != "synonym"]
        self.operations: list[Operation] = list(known if operations is None else operations)
        if not self.operations or not set(self.operations) <= set(known):
            raise ValueError(
                f"operations: got {self.operations}; expected some of {', '.join(known)} for backend={backend!r}."
            )
        self.share = number("share", share, above=0, most=1)
        if backend == "wordnet":
            _wordnet()

    def __call__(self, text: str, generator: torch.Generator) -> str:
        """The changed caption; blanks between words become single ones."""
        seed = int(torch.randint(2**63 - 1, (1,), generator=generator))
        draw = np.random.default_rng(seed)
        words = text.split()
        if not words:
            return text
        operation = self.operations[int(draw.integers(len(self.operations)))]
        count = max(1, round(self.share * len(words)))
        return " ".join(getattr(self, f"_{operation}")(words, count, draw))

    def synonyms(self, word: str) -> Sequence[str]:
        """Synonyms of a word without its punctuation, sorted; none for the built-in backend and function words."""
        if self.backend == "builtin" or not word or word.lower() in _FUNCTION_WORDS:
            return ()
        return _wordnet_synonyms(word.lower())

    def _synonym(self, words: list[str], count: int, draw: np.random.Generator) -> list[str]:
        changed = list(words)
        for at in draw.permutation(len(words)).tolist():
            head, core, tail = _parts(words[at])
            if synonyms := self.synonyms(core):
                changed[at] = head + synonyms[int(draw.integers(len(synonyms)))] + tail
                count -= 1
            if count == 0:
                break
        return changed

    def _insert(self, words: list[str], count: int, draw: np.random.Generator) -> list[str]:
        pool = [_parts(word)[1] for word in words]
        pool = [word for word in pool if word]
        if self.backend == "wordnet":
            pool = [word for word in pool if self.synonyms(word)]
        if not pool:
            return words
        grown = list(words)
        for _ in range(count):
            word = pool[int(draw.integers(len(pool)))]
            if synonyms := self.synonyms(word):
                word = synonyms[int(draw.integers(len(synonyms)))]
            grown.insert(int(draw.integers(len(grown) + 1)), word)
        return grown

    def _swap(self, words: list[str], count: int, draw: np.random.Generator) -> list[str]:
        swapped = list(words)
        for _ in range(count if len(words) > 1 else 0):
            i, j = draw.choice(len(words), size=2, replace=False).tolist()
            swapped[i], swapped[j] = swapped[j], swapped[i]
        return swapped

    def _delete(self, words: list[str], count: int, draw: np.random.Generator) -> list[str]:
        stays = draw.random(len(words)) >= self.share
        if not stays.any():
            stays[int(draw.integers(len(words)))] = True
        return [word for word, stay in zip(words, stays.tolist(), strict=True) if stay]

    def __repr__(self) -> str:
        return f"EDA(backend={self.backend!r}, share={self.share}, operations={self.operations})"


def _parts(word: str) -> tuple[str, str, str]:
    """Punctuation before, the word, punctuation after."""
    core = word.strip(string.punctuation)
    head, _, tail = word.partition(core) if core else (word, "", "")
    return head, core, tail


@functools.cache
def _wordnet() -> Any:
    """NLTK's WordNet reader, loaded."""
    try:
        from nltk.corpus import wordnet
    except ImportError as error:
        raise UserError(
            "EDA(backend='wordnet'): nltk is not installed; pip install 'hypvl[synonyms]', or use backend='builtin' "
            "(no synonyms)."
        ) from error
    try:
        wordnet.ensure_loaded()
    except LookupError as error:
        raise UserError(
            "EDA(backend='wordnet'): NLTK's WordNet corpus is not there; python -m nltk.downloader wordnet, or use "
            "backend='builtin' (no synonyms)."
        ) from error
    return wordnet


@functools.lru_cache(maxsize=50_000)
def _wordnet_synonyms(word: str) -> tuple[str, ...]:
    names = (name.replace("_", " ") for synset in _wordnet().synsets(word) for name in synset.lemma_names())
    return tuple(sorted({name for name in names if name.lower() != word}))
