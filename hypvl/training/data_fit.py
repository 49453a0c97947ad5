"""Data and model fit together: what the data leaves open comes from the model, what it says is compared."""

import itertools
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from hypvl.checks import one_of
from hypvl.data.sample import BadSample, Sample
from hypvl.data.stream import Reader, is_stream
from hypvl.errors import ConfigError
from hypvl.geometry.scorers import Modality
from hypvl.models.dual_encoder import DualEncoder
from hypvl.training.step import Learner

_OPEN = object()
_TRIED = 16  # rows among which a sample that can be used is looked for


def take_from_model(model: DualEncoder, dataset: Any) -> None:
    """Give a data set the model's tokenizer, image size and interpolation where it leaves them None, in place.

    They are ``dataset.tokenizer``, and ``size`` and ``interpolation`` of ``dataset.image_transform``. A data set or a
    transform that lacks such an attribute is left as it is, as is what would come from a tower that the model lacks.
    Of a mixture, each of its ``sources`` is given them.

    Raises:
        ConfigError: when the text encoder has no tokenizer of its own.
    """
    if sources := _sources(dataset):
        for source in sources.values():
            take_from_model(model, source)
        return
    if model.textual is not None and getattr(dataset, "tokenizer", _OPEN) is None:
        own = getattr(model, "tokenizer", None)
        if own is None:
            raise ConfigError(
                f"dataset.tokenizer: got null, the tokenizer of the text encoder, but a {type(model.textual).__name__} "
                "has none; name one."
            )
        dataset.tokenizer = own
    transform = getattr(dataset, "image_transform", None)
    if model.visual is None:
        return
    if getattr(transform, "size", _OPEN) is None:
        transform.size = model.image_size  # type: ignore[union-attr]  # it has the attribute
    if getattr(transform, "interpolation", _OPEN) is None:
        transform.interpolation = model.interpolation  # type: ignore[union-attr]


def check_data_fits(
    model: DualEncoder,
    dataset: Any,
    *,
    name: str = "model",
    modalities: Collection[Modality] = ("image", "text"),
    place: str = "dataset",
) -> None:
    """Refuse data that would fail at some later batch, or be read wrongly.

    A caption as long as ``dataset.tokenizer`` allows must fit into the text encoder, every token id into its
    vocabulary, which must be the tokenizer's where the encoder is bound to one, and images must have the size that the
    image encoder takes. Attributes that a data set or an encoder lacks are not checked.

    Args:
        model: The model, or that of a teacher.
        dataset: What `dataset` of a config builds.
        name: The model's place in the config.
        modalities: What it encodes of these data.
        place: The data set's place in the config; each source of a mixture is checked at its own.

    Raises:
        ConfigError: naming the two settings that do not fit.
    """
    for modality in modalities:
        one_of("modalities", modality, Modality)
    if sources := _sources(dataset):
        for key, source in sources.items():
            check_data_fits(model, source, name=name, modalities=modalities, place=f"{place}.sources.{key}")
        return
    if "text" in modalities and model.textual is not None:
        _check_texts(model, getattr(dataset, "tokenizer", None), name, place)
    size = getattr(getattr(dataset, "image_transform", None), "size", None)
    visual = model.visual if "image" in modalities else None
    fixed = visual is not None and getattr(visual, "fixed_size", False)
    if fixed and isinstance(size, int) and size != model.image_size:
        raise ConfigError(
            f"{place}.image_transform.size: got {size}, but {name}.visual.image_size is {model.image_size}, and the "
            "image encoder takes no other; give both the same number."
        )


def check_sample_fits(learner: Learner, dataset: Any, *, seed: int) -> None:
    """Refuse data that lack what the objective asks for (crops, labels, masks), or have too many classes for it.

    One sample is read, the first of a few rows that can be used; where none can, training will say so. The number of
    classes is that of ``classes`` of the data set or of its mapper.

    Raises:
        ConfigError: as :meth:`Learner.check_data`, and for sources of a mixture whose samples have different fields.
    """
    if sources := _sources(dataset):
        for source in sources.values():
            check_sample_fits(learner, source, seed=seed)
        _check_same_fields(sources, seed=seed)
        return
    sample = _first_sample(dataset, seed=seed)
    classes = getattr(dataset, "classes", None) or getattr(getattr(dataset, "mapper", None), "classes", None)
    if sample is not None:
        learner.check_data(sample, classes=len(classes) if classes else None)


def _sources(dataset: Any) -> Mapping[str, Any]:
    """The sources of a mixture by name; of any other data set none."""
    sources = getattr(dataset, "sources", None)
    return sources if isinstance(sources, Mapping) else {}


def _check_same_fields(sources: Mapping[str, Any], *, seed: int) -> None:
    """One batch holds samples of all sources: each must have the fields of the others."""
    samples = {name: _first_sample(source, seed=seed) for name, source in sources.items()}
    fields = {name: set(sample) for name, sample in samples.items() if sample is not None}
    names = sorted(set().union(*fields.values()))
    for name, own in fields.items():
        if missing := [field for field in names if field not in own]:
            other = next(key for key in fields if missing[0] in fields[key])
            raise ConfigError(
                f"dataset.sources.{name}: its samples have no {missing[0]!r}, which those of {other} have; mix sources "
                "whose mappers give the same fields."
            )


def _first_sample(dataset: Any, *, seed: int) -> Sample | None:
    if is_stream(dataset):  # it has no rows: the first samples of its first reader
        reader = Reader(0, 1)
        items = itertools.islice(dataset.read_stream(seed, reader, dataset.first_place(reader)), _TRIED)
        found = next((item.sample for item in items if item.sample is not None), None)
        return None if found is None else {name: value for name, value in found.items() if name != "key"}
    rows = len(dataset)
    for row in sorted({i * rows // _TRIED for i in range(_TRIED)}) if rows else ():
        try:
            sample: Sample = dataset.sample(row, np.random.default_rng([seed, row]))
        except BadSample:
            continue
        return {name: value for name, value in sample.items() if name != "key"}
    return None


def _check_texts(model: DualEncoder, tokenizer: Any, name: str, place: str) -> None:
    longest = getattr(tokenizer, "context_length", None)
    if isinstance(longest, int) and longest > model.context_length:
        raise ConfigError(
            f"{place}.tokenizer.context_length: got {longest}, but {name}.textual.context_length is "
            f"{model.context_length}, and the first longer caption would end the run; give both the same number."
        )
    ids, known = getattr(tokenizer, "vocab_size", None), getattr(model.textual, "vocab_size", None)
    if isinstance(ids, int) and isinstance(known, int) and ids > known:
        raise ConfigError(
            f"{name}.textual.vocab_size: got {known}, but the tokenizer of the data has {ids} ids; give the encoder at "
            "least so many."
        )
    end, read_at = getattr(tokenizer, "eot_token", None), getattr(model.textual, "eot_token", None)
    if isinstance(end, int) and isinstance(read_at, int) and end != read_at:
        raise ConfigError(
            f"{name}.textual.eot_token: got {read_at}, but texts of the tokenizer of the data end with {end}; give the "
            "encoder that number, or null where it is the last of its vocabulary."
        )
    for part, words in (("vocabulary", "vocabulary"), ("pad_token", "token that fills rows")):
        theirs, ours = getattr(tokenizer, part, None), getattr(model.textual, part, None)
        if theirs is not None and ours is not None and theirs != ours:
            advice = "set its tokenizer to null, which is the text encoder's own."
            if name != "model":  # a teacher that reads other tokens than the student
                advice = (
                    "store its features with hypvl cache-teacher, which reads the texts by its own tokenizer."
                )
            raise ConfigError(
                f"{place}.tokenizer: its {words} is {theirs!r}, but that of {name}.textual is {ours!r}; {advice}"
            )
