"""In-modal augmentation: what is drawn from where, what operations do, what is refused."""

import pickle
import random
import sys
import types
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hypvl.data import augment as module
from hypvl.data.augment import EDA, AutoAugment, InModalAugment, Photometric
from hypvl.data.batch import collate
from hypvl.data.mappers import GenericMapper
from hypvl.data.sample import BadSample, finish_sample
from hypvl.data.shards import ImageTextShards
from hypvl.data.table import ImageTextTable
from hypvl.data.transforms import RandomResizedCrop, Squeeze
from hypvl.errors import UserError
from tests.data.helpers import Letters, jpeg, text_of, write_tar

CAPTION = "a small red bird sits on the old wooden fence, near a house"


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pil_image() -> Tensor:
    return torch.randint(0, 256, (3, 24, 30), generator=generator(9), dtype=torch.uint8)


def test_images_change_by_the_generator_alone() -> None:
    change, image = AutoAugment(), pil_image()
    state, python_state = torch.get_rng_state(), random.getstate()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    first = [change(image, generator(seed)) for seed in range(12)]
    torch.manual_seed(1)
    again = [pickle.loads(pickle.dumps(change))(image, generator(seed)) for seed in range(12)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    torch.set_rng_state(state)
    [change(image, generator(seed)) for seed in range(12)]
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state) and random.getstate() == python_state  # noqa: NPY002
    assert all(x.dtype == torch.uint8 and x.shape == image.shape for x in first)
    assert sum(not torch.equal(x, image) for x in first) >= 8  # some operations have a probability below 1
    assert len({x.sum().item() for x in first}) >= 6


def test_a_policy_is_chosen_by_name() -> None:
    assert repr(AutoAugment("cifar10")) == "AutoAugment(policy='cifar10')"
    with pytest.raises(
        ValueError, match="policy: got 'randaugment'; expected 'imagenet', 'cifar10' or 'svhn'"
    ):
        AutoAugment("randaugment")  # type: ignore[arg-type]


@pytest.mark.parametrize("operation", ["insert", "swap", "delete"])
def test_what_each_built_in_operation_does(operation: Any) -> None:
    change, words = EDA(operations=[operation], share=0.25), CAPTION.split()
    count = round(0.25 * len(words))
    result = [change(CAPTION, generator(seed)).split() for seed in range(200)]
    assert len({tuple(x) for x in result}) > 20
    for x in result:
        if operation == "insert":
            assert len(x) == len(words) + count
            grown = Counter(w.strip(",") for w in x) - Counter(w.strip(",") for w in words)
            assert set(grown) <= {w.strip(",") for w in words} and _subsequence(words, x)
        elif operation == "swap":
            assert Counter(x) == Counter(words) and x != words
            assert sum(a != b for a, b in zip(x, words, strict=True)) <= 2 * count
        else:
            assert 1 <= len(x) <= len(words) and _subsequence(x, words)
    if operation == "delete":
        assert sum(len(x) for x in result) / (200 * len(words)) == pytest.approx(0.75, abs=0.04)


def _subsequence(short: list[str], long: list[str]) -> bool:
    rest = iter(long)
    return all(word in rest for word in short)


def test_operations_are_drawn_evenly_and_draws_repeat() -> None:
    change, lengths = EDA(share=0.5), Counter()
    for seed in range(300):
        text = change(CAPTION, generator(seed))
        assert text == change(CAPTION, generator(seed))
        size = len(text.split()) - len(CAPTION.split())
        lengths["more" if size > 0 else "less" if size < 0 else "same"] += 1
    assert all(70 < lengths[kind] < 130 for kind in ("more", "less", "same"))


@pytest.mark.parametrize("text", ["", "   ", "bird", "!!!"])
def test_captions_too_short_to_change_stay(text: str) -> None:
    for operation in ("swap", "delete"):
        assert EDA(operations=[operation], share=1.0)(text, generator()) == text  # type: ignore[list-item]
    assert EDA(operations=["insert"])("!!!", generator()) == "!!!"
    assert EDA(operations=["insert"])("bird", generator()) == "bird bird"


@pytest.fixture
def wordnet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A WordNet of three words."""
    synsets = {
        "small": [["small", "little"], ["minor", "small"]],
        "bird": [["bird", "fowl"]],
        "fence": [["fence"]],
    }

    class Synset:
        def __init__(self, names: list[str]) -> None:
            self.names = names

        def lemma_names(self) -> list[str]:
            return self.names

    reader = types.SimpleNamespace(synsets=lambda word: [Synset(names) for names in synsets.get(word, [])])
    monkeypatch.setattr(module, "_wordnet", lambda: reader)
    module._wordnet_synonyms.cache_clear()
    yield
    module._wordnet_synonyms.cache_clear()


@pytest.mark.usefixtures("wordnet")
def test_synonyms_replace_content_words_and_keep_punctuation() -> None:
    change = EDA(backend="wordnet", operations=["synonym"], share=0.1)
    assert change.synonyms("Small") == ("little", "minor") and change.synonyms("on") == ()
    result = {change("(small) bird, on a fence.", generator(seed)) for seed in range(40)}
    assert result == {
        "(little) bird, on a fence.", "(minor) bird, on a fence.", "(small) fowl, on a fence.",
    }  # fmt: skip
    both = EDA(backend="wordnet", operations=["synonym"], share=1.0)("small bird", generator())
    assert both in {"little fowl", "minor fowl"}
    assert change("on a fence", generator()) == "on a fence"  # none known
    grown = {EDA(backend="wordnet", operations=["insert"])("bird sits", generator(s)) for s in range(30)}
    assert grown == {"fowl bird sits", "bird fowl sits", "bird sits fowl"}
    assert set(EDA(backend="wordnet").operations) == {"synonym", "insert", "swap", "delete"}


def test_wordnet_that_is_not_there_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    module._wordnet.cache_clear()
    monkeypatch.setitem(sys.modules, "nltk", None)
    monkeypatch.setitem(sys.modules, "nltk.corpus", None)
    with pytest.raises(UserError, match=r"nltk is not installed; pip install 'hypvl\[synonyms\]'"):
        EDA(backend="wordnet")

    def missing() -> None:
        raise LookupError("Resource wordnet not found.")

    corpus = types.SimpleNamespace(wordnet=types.SimpleNamespace(ensure_loaded=missing))
    monkeypatch.setitem(sys.modules, "nltk", types.SimpleNamespace(corpus=corpus))
    monkeypatch.setitem(sys.modules, "nltk.corpus", corpus)
    with pytest.raises(UserError, match=r"corpus is not there; python -m nltk\.downloader wordnet"):
        EDA(backend="wordnet")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "nltk"}, "backend: got 'nltk'; expected 'builtin' or 'wordnet'"),
        (
            {"operations": ["synonym"]},
            r"operations: got \['synonym'\]; expected some of insert, swap, delete",
        ),
        ({"operations": []}, r"operations: got \[\]"),
        ({"share": 0.0}, "share: got 0.0; expected a number above 0"),
    ],
)
def test_wrong_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EDA(**options)
    with pytest.raises(ValueError, match="neither image nor text"):
        InModalAugment()


def test_a_sample_gets_both_and_is_otherwise_the_same() -> None:
    fields = {"image": jpeg(1), "box_image": jpeg(2), "caption": CAPTION}
    options: dict[str, Any] = {
        "image_transform": RandomResizedCrop(16), "tokenizer": Letters(), "image_seed": 5,
    }  # fmt: skip
    plain = finish_sample("k", fields, **options)
    change = InModalAugment(image=AutoAugment(), text=EDA())
    result = finish_sample("k", fields, augment=change, **options)
    assert set(result) - set(plain) == {"augmented_image", "augmented_text"}
    assert all(np.array_equal(result[name], plain[name]) for name in plain)
    assert result["augmented_image"].shape == (3, 16, 16) and result["augmented_image"].dtype == torch.uint8
    assert not torch.equal(result["augmented_image"], plain["image"])
    assert text_of(result["augmented_text"]) != CAPTION
    again = finish_sample("k", fields, augment=change, **options)
    assert torch.equal(again["augmented_image"], result["augmented_image"])
    assert torch.equal(again["augmented_text"], result["augmented_text"])
    inverted = InModalAugment(image=lambda image, generator: 255 - image)
    options["image_transform"] = Squeeze(16)  # nothing random: the same image, changed
    exact = finish_sample("k", fields, augment=inverted, **options)
    assert torch.equal(exact["augmented_image"], 255 - exact["image"]) and "augmented_text" not in exact
    only = finish_sample("k", fields, augment=InModalAugment(text=EDA()), **options)
    assert "augmented_image" not in only and "augmented_text" in only
    with pytest.raises(BadSample, match="missing image, which is to be augmented"):
        finish_sample("k", {"caption": "a b"}, augment=change, **options)


def test_every_data_set_hands_it_on_and_its_fingerprint_says_so(tmp_path: Any) -> None:
    write_tar(tmp_path / "a.tar", [("s.jpg", jpeg(0)), ("s.txt", CAPTION.encode())])
    (tmp_path / "0.jpg").write_bytes(jpeg(0))
    (tmp_path / "t.csv").write_text(f"filepath\ttitle\n0.jpg\t{CAPTION}\n")
    change = InModalAugment(image=AutoAugment(), text=EDA())

    def shards(**options: Any) -> ImageTextShards:
        return ImageTextShards(str(tmp_path / "a.tar"), GenericMapper(), Squeeze(8), Letters(), **options)

    def table(**options: Any) -> ImageTextTable:
        return ImageTextTable(tmp_path / "t.csv", image_transform=Squeeze(8), tokenizer=Letters(), **options)

    for build in (shards, table):
        plain, augmented, text_only = (
            build(),
            build(augment=change),
            build(augment=InModalAugment(text=EDA())),
        )
        samples = [augmented.sample(0, np.random.default_rng(s)) for s in range(2)]
        batch = collate(samples, positions=[0, 1], rows=[0, 0])
        assert batch["augmented_image"].shape == (2, 3, 8, 8)
        assert batch["augmented_text"].shape[0] == 2 and batch["augmented_text"].dtype == torch.int64
        assert torch.equal(batch["image"][0], plain.sample(0, np.random.default_rng(0))["image"])
        assert len({x.fingerprint for x in (plain, augmented, text_only)}) == 3
        assert augmented.fingerprint == build(augment=InModalAugment(AutoAugment(), EDA())).fingerprint


def test_photometric_draws_from_the_given_generator_only() -> None:
    image = torch.randint(0, 256, (3, 24, 24), dtype=torch.uint8, generator=generator(1))
    change = Photometric(jitter=1.0, blur=1.0, gray=0.0)
    before = torch.get_rng_state()
    first, again, other = (change(image, generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == image.shape and first.dtype == torch.uint8


@pytest.mark.parametrize(
    ("switch", "expected"),
    [
        ("flip", lambda x: x.flip(-1)),
        ("solarize", lambda x: torch.where(x >= 128, 255 - x, x)),
        (
            "gray",
            lambda x: (x[:1] * 0.2989 + x[1:2] * 0.587 + x[2:] * 0.114).to(torch.uint8).expand(3, -1, -1),
        ),
    ],
)
def test_each_photometric_change_by_hand(switch: str, expected: Any) -> None:
    off = dict.fromkeys(("flip", "jitter", "gray", "blur", "solarize"), 0.0)
    image = torch.randint(0, 256, (3, 24, 24), dtype=torch.uint8, generator=generator(1))
    assert torch.equal(Photometric(**off)(image, generator()), image)
    changed = Photometric(**{**off, switch: 1.0})(image, generator())
    assert (changed.int() - expected(image).int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"flip": 1.5}, "flip: got 1.5"),
        ({"strength": [0.4, 0.4, 0.2]}, "expected four numbers"),
        ({"strength": [0.4, 0.4, 0.2, 0.6]}, "the last .hue. at most 0.5"),
    ],
)
def test_photometric_numbers_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Photometric(**arguments)


def test_crops_of_several_sizes_become_views_of_a_batch() -> None:
    crops = [RandomResizedCrop(16, augment=Photometric()), RandomResizedCrop(8, scale=(0.05, 0.4))]
    augment = InModalAugment(crops=crops)
    options: dict[str, Any] = {"image_transform": RandomResizedCrop(16), "tokenizer": Letters()}
    fields = {"image": jpeg(1), "caption": CAPTION}
    samples = [finish_sample("k", fields, augment=augment, image_seed=i, **options) for i in range(3)]
    plain = finish_sample("k", fields, image_seed=0, **options)
    assert torch.equal(samples[0]["image"], plain["image"])
    batch = collate(samples, positions=[0, 1, 2], rows=[0, 1, 2])
    assert [tuple(crop.shape) for crop in batch["crops"]] == [(3, 3, 16, 16), (3, 3, 8, 8)]
    assert torch.equal(batch["crops"][1][2], samples[2]["crops"][1])
    assert "Photometric" in repr(augment) and "crops" not in repr(InModalAugment(text=EDA()))
    with pytest.raises(BadSample, match="missing image, which is to be cropped"):
        finish_sample("k", {"caption": CAPTION}, augment=augment, image_seed=0, **options)
