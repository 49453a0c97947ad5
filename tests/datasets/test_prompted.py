"""Labelled images as training data: captions by templates, labels, bad images, workers, a run."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hypvl.data.loader import Loader
from hypvl.data.sample import BadSample, check_dataset
from hypvl.data.transforms import ResizeCenterCrop
from hypvl.datasets.classification.folders import ImageFolderSet
from hypvl.datasets.images import LabelledImages
from hypvl.datasets.prompted import PromptedImages
from tests.data.helpers import Letters, text_of
from tests.evaluation.fakes import BLUE, RED, image as pil_image


def folders(root: Path) -> ImageFolderSet:
    for number in range(3):
        pil_image(root / "cat" / f"{number}.png", RED)
    pil_image(root / "dog" / "0.png", BLUE)
    return ImageFolderSet(root)


def prompted(images: object, **settings: object) -> PromptedImages:
    return PromptedImages(images, image_transform=ResizeCenterCrop(8), tokenizer=Letters(), **settings)  # type: ignore[arg-type]


def samples(data: PromptedImages, row: int, count: int = 20) -> list[dict[str, object]]:
    return [data.sample(row, np.random.default_rng(seed)) for seed in range(count)]


def test_a_sample_has_its_label_and_one_of_the_prompts_of_its_class(tmp_path: Path) -> None:
    data = prompted(folders(tmp_path), prompts=["a {}.", "the {}."])
    check_dataset(data)
    drawn = samples(data, 3)
    assert {text_of(sample["text"]) for sample in drawn} == {"a dog.", "the dog."}  # type: ignore[arg-type]
    assert {sample["labels"] for sample in drawn} == {1} and data.classes == ["cat", "dog"]
    assert drawn[0]["key"] == "dog/0.png"
    image = drawn[0]["image"]
    assert isinstance(image, torch.Tensor) and image.shape == (3, 8, 8)
    assert image[:, 4, 4].tolist() == list(BLUE)
    same = data.sample(3, np.random.default_rng(0))["text"]
    assert torch.equal(same, drawn[0]["text"])  # type: ignore[arg-type]  # a pure function of the generator


def test_prompts_are_those_of_the_set_or_generic_ones(tmp_path: Path) -> None:
    images = folders(tmp_path)
    assert text_of(samples(prompted(images), 0, 1)[0]["text"]).count("cat") == 1  # type: ignore[arg-type]
    images.prompts = {"cat": ["felis"], "dog": ["canis"]}
    assert text_of(samples(prompted(images), 0, 1)[0]["text"]) == "felis"  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'a photo': has no place for the class name"):
        prompted(images, prompts=["a photo"])
    with pytest.raises(ValueError, match="prompts: none for class 'dog'"):
        prompted(images, prompts={"cat": ["a cat"]})


@pytest.mark.parametrize("labels", [[0, 2], [0, -1], [0, (0, 1)]])
def test_labels_must_be_one_class_each(labels: list[object], tmp_path: Path) -> None:
    images = folders(tmp_path).images
    with pytest.raises(
        ValueError, match=r"images: got the label .* in a set of 2 classes; expected one of 0 to 1"
    ):
        prompted(LabelledImages(images, labels, classes=["a", "b"]))


def test_unreadable_and_large_images_are_bad_samples(tmp_path: Path) -> None:
    images = folders(tmp_path)
    (tmp_path / "dog" / "0.png").write_bytes(b"no image")
    with pytest.raises(BadSample, match=r"dog/0\.png: .*not an image|dog/0\.png: "):
        prompted(images).sample(3, np.random.default_rng(0))
    with pytest.raises(BadSample, match=r"cat/0\.png: image: has 63 pixels, more than 62"):
        prompted(images, max_pixels=62).sample(0, np.random.default_rng(0))


def test_fingerprint_follows_rows_prompts_and_crops(tmp_path: Path) -> None:
    images = folders(tmp_path / "here")
    first = prompted(images).fingerprint
    assert first == prompted(folders(tmp_path / "there")).fingerprint  # a folder may move
    other = LabelledImages(images.images, [1, *images.labels[1:]], classes=images.classes, keys=images.keys)
    changed = [prompted(other), prompted(images, prompts=["a {}"]), prompted(images.take([0, 1, 3]))]
    assert len({first, *(data.fingerprint for data in changed)}) == 4


def test_workers_read_what_one_process_reads(tmp_path: Path) -> None:
    data = prompted(folders(tmp_path))
    batches = []
    for workers in (0, 1):
        loader = Loader(data, global_batch_size=4, rank=0, world_size=1, num_workers=workers, seed=0)
        with loader:
            batches.append(next(loader))
    assert sorted(batches[0]["labels"].tolist()) == [0, 0, 0, 1]
    assert torch.equal(batches[0]["labels"], batches[1]["labels"])
    assert torch.equal(batches[0]["text"], batches[1]["text"])
