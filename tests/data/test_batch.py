import numpy as np
import pytest
import torch

from hypvl.data.batch import collate, pad_rows, row_lengths
from hypvl.data.sample import BadSample, caption_text, finish_sample
from hypvl.data.transforms import RandomResizedCrop, Squeeze
from tests.data.helpers import Letters, jpeg, text_of


def sample(key="a", image=1, text=(1, 2), **others):
    return {
        "key": key,
        "image": torch.full((3, 2, 2), image, dtype=torch.uint8),
        "text": torch.tensor(text),
    } | others


def test_collate_joins_the_fields():
    batch = collate([sample(), sample("b", 2, (3,))], positions=[8, 9], rows=[5, 0], bad=[("c", "why")])
    assert batch["image"].shape == (2, 3, 2, 2) and batch["image"].dtype == torch.uint8
    assert batch["image"][:, 0, 0, 0].tolist() == [1, 2]
    assert batch["text"].tolist() == [[1, 2], [3, 0]]
    assert batch["position"].tolist() == [8, 9] and batch["index"].tolist() == [5, 0]
    assert batch["key"] == ["a", "b"] and batch["bad"] == [("c", "why")]


def test_collate_joins_optional_fields():
    others = [
        {"negative_text": torch.tensor([[1, 2], [3, 0]]), "box_text": torch.tensor([4]), "labels": 7,
         "negative_mask": torch.tensor([True, False]), "note": "x", "array": 0.5},
        {"negative_text": torch.tensor([[5], [6]]), "box_text": torch.tensor([4, 5, 6]), "labels": 8,
         "negative_mask": torch.tensor([True, True]), "note": "y", "array": 1.5},
    ]  # fmt: skip
    batch = collate([sample(**o) for o in others], positions=[0, 1], rows=[0, 1])
    assert batch["negative_text"].tolist() == [[1, 2], [3, 0], [5, 0], [6, 0]]
    assert batch["negative_mask"].tolist() == [[True, False], [True, True]]
    assert batch["box_text"].tolist() == [[4, 0, 0], [4, 5, 6]]
    assert batch["labels"].tolist() == [7, 8] and batch["labels"].dtype == torch.int64
    assert batch["note"] == ["x", "y"] and batch["array"].tolist() == [0.5, 1.5]


def test_collate_names_what_does_not_fit():
    with pytest.raises(ValueError, match="sample b has no 'labels'"):
        collate([sample(labels=1), sample("b")], positions=[0, 1], rows=[0, 1])
    wide = sample() | {"image": torch.zeros(3, 4, 4)}
    with pytest.raises(ValueError, match=r"'image' has different shapes.*\(3, 2, 2\), \(3, 4, 4\)"):
        collate([sample(), wide], positions=[0, 1], rows=[0, 1])


def test_pad_rows():
    assert pad_rows([torch.tensor([1]), torch.tensor([2, 3, 4])]).tolist() == [[1, 0, 0], [2, 3, 4]]


def test_row_lengths_count_to_the_last_token():
    rows = torch.tensor([[1, 2, 0], [3, 0, 4], [0, 0, 0], [5, 6, 7]])
    lengths = row_lengths(rows)
    assert lengths.tolist() == [2, 3, 1, 3] and lengths.dtype == np.int64
    assert row_lengths(rows[:0]).tolist() == []


def test_the_pad_token_is_the_tokenizers():
    """A text may hold the id 0, and 1 may be padding (RoBERTa), or an id that no text has, -1 (GPT-2)."""
    values = [{"text": torch.tensor([0, 7, 2])}, {"text": torch.tensor([0, 2])}]
    for pad_token in (1, -1):
        batch = collate(values, positions=[0, 1], rows=[0, 1], pad_token=pad_token)
        assert batch["text"].tolist() == [[0, 7, 2], [0, 2, pad_token]]
        assert batch["text_lengths"].tolist() == [3, 2]


def test_every_text_comes_with_its_lengths_on_the_host():
    others = [{"negative_text": torch.tensor([[1, 2], [3, 0]])}, {"negative_text": torch.tensor([[5], [6]])}]
    batch = collate([sample(**o) for o in others], positions=[0, 1], rows=[0, 1])
    assert isinstance(batch["text_lengths"], np.ndarray)  # no tensor: neither to_device nor DDP moves it
    assert batch["text_lengths"].tolist() == [2, 2]
    assert batch["negative_text_lengths"].tolist() == [2, 1, 1, 1]


def finished(seed=3, **fields):
    return finish_sample(
        "k", fields, image_transform=RandomResizedCrop(8), tokenizer=Letters(), image_seed=seed
    )


def test_finish_sample_makes_tensors_by_name():
    made = finished(image=jpeg(0), caption="hello", box_image=jpeg(0), box_text="box",
                    negative_text=["a", "bc"], labels=4)  # fmt: skip
    assert text_of(made["text"]) == "hello" and text_of(made["box_text"]) == "box"
    assert made["negative_text"].tolist() == [[97, 0], [98, 99]]
    assert made["image"].shape == made["box_image"].shape == (3, 8, 8)
    assert not torch.equal(made["image"], made["box_image"])  # the next crop of the same generator
    assert made["labels"] == 4 and made["key"] == "k"


def test_finish_sample_crops_by_its_seed_alone():
    assert torch.equal(finished(image=jpeg(0))["image"], finished(image=jpeg(0), caption="x")["image"])
    assert not torch.equal(finished(image=jpeg(0))["image"], finished(4, image=jpeg(0))["image"])


def test_an_image_that_cannot_be_decoded_is_a_bad_sample():
    with pytest.raises(BadSample, match="k: box_image: cannot decode"):
        finished(box_image=b"no")
    with pytest.raises(BadSample, match="more than max_pixels=10"):
        finish_sample("k", {"image": jpeg(0)}, image_transform=Squeeze(8), tokenizer=Letters(), image_seed=0,
                      max_pixels=10)  # fmt: skip


def test_caption_text_draws_only_for_lists():
    generator = np.random.default_rng(0)
    before = generator.bit_generator.state
    assert caption_text("k", "one", "caption", generator) == "one"
    assert generator.bit_generator.state == before
    assert caption_text("k", ["one"], "caption", generator) == "one"
