"""Which boxes of a sample are taken, where they are cut out, and how samples with different numbers are joined."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hypvl.data.batch import collate
from hypvl.data.boxes import Boxes, choose_boxes, cut_out
from hypvl.data.loader import Loader
from hypvl.data.sample import BadSample
from hypvl.data.table import ImageTextTable
from hypvl.data.transforms import RandomResizedCrop, Squeeze
from tests.data.helpers import Letters, encode, jpeg, text_of


def choose(boxes: Boxes, count: int, *, most: int | None = None, seed: int = 0) -> list[int]:
    return choose_boxes(count, boxes=boxes, max_boxes=most, generator=np.random.default_rng(seed))


def test_first_all_and_none() -> None:
    assert choose("first", 7, most=3) == [0, 1, 2] and choose("first", 2, most=3) == [0, 1]
    assert choose("all", 3) == [0, 1, 2]
    assert choose("all", 0) == choose("first", 0, most=3) == choose("random", 0, most=3) == []


def test_one_is_drawn_evenly() -> None:
    counts = Counter(choose("one", 4, seed=seed)[0] for seed in range(400))
    assert all(abs(counts[i] - 100) < 44 for i in range(4))  # five standard deviations


def test_a_random_few_are_in_order_and_depend_on_the_generator_alone() -> None:
    drawn = [choose("random", 6, most=2, seed=seed) for seed in range(300)]
    assert drawn == [choose("random", 6, most=2, seed=seed) for seed in range(300)]
    assert all(first < second for first, second in drawn)
    pairs = Counter(map(tuple, drawn))
    assert len(pairs) == 15 and all(abs(count - 20) < 22 for count in pairs.values())


@pytest.mark.parametrize(
    ("boxes", "most", "said"),
    [
        ("some", None, "boxes: got 'some'; expected"),
        ("first", None, r"max_boxes: got None with boxes='first'; give the most boxes of a sample"),
        ("random", 0, "max_boxes: got 0; expected a whole number of at least 1"),
        ("all", 5, "max_boxes: got 5 with boxes='all', which takes no number"),
    ],
)
def test_choices_that_do_not_go_together(boxes: Any, most: int | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        choose(boxes, 3, most=most)


def test_a_box_has_every_pixel_that_it_touches() -> None:
    image = torch.arange(3 * 4 * 10).reshape(3, 4, 10)
    assert torch.equal(cut_out(image, (0.15, 0.25, 0.5, 0.51)), image[:, 1:3, 1:5])
    assert torch.equal(cut_out(image, (0.0, 0.0, 1.0, 1.0)), image)


def boxed(key: str, boxes: int) -> dict[str, Any]:
    return {
        "key": key,
        "image": torch.zeros(3, 2, 2, dtype=torch.uint8),
        "text": torch.tensor([1, 2]),
        "box_image": torch.full((boxes, 3, 2, 2), boxes, dtype=torch.uint8),
        "box_text": torch.full((boxes, max(1, boxes)), boxes),
        "box_owner": torch.zeros(boxes, dtype=torch.int64),
        "box_corners": torch.full((boxes, 4), float(boxes)),
    }


def test_rows_of_a_group_are_joined_and_know_their_sample() -> None:
    batch = collate([boxed("a", 2), boxed("b", 0), boxed("c", 1)], positions=[0, 1, 2], rows=[0, 1, 2])
    assert batch["box_owner"].tolist() == [0, 0, 2] and batch["box_owner"].dtype == np.int64
    assert batch["box_image"][:, 0, 0, 0].tolist() == [2, 2, 1]
    assert batch["box_text"].tolist() == [[2, 2], [2, 2], [1, 0]]
    assert batch["box_text_lengths"].tolist() == [2, 2, 1]
    assert batch["box_corners"][:, 3].tolist() == [2.0, 2.0, 1.0]


def test_a_batch_may_have_no_rows_of_a_group() -> None:
    batch = collate([boxed("a", 0), boxed("b", 0)], positions=[0, 1], rows=[0, 1])
    assert batch["box_owner"].tolist() == [] and batch["box_owner"].dtype == np.int64
    assert batch["box_image"].shape == (0, 3, 2, 2) and batch["box_image"].dtype == torch.uint8
    assert batch["box_text"].shape == (0, 1) and batch["box_text_lengths"].tolist() == []


def test_rows_that_do_not_fit_are_named() -> None:
    broken = boxed("b", 2) | {"box_text": torch.zeros(3, 1, dtype=torch.int64)}
    with pytest.raises(ValueError, match="sample b has 3 rows of 'box_text', but 2 of 'box_owner'"):
        collate([boxed("a", 1), broken], positions=[0, 1], rows=[0, 1])
    larger = boxed("b", 2) | {"box_image": torch.zeros(2, 3, 4, 4, dtype=torch.uint8)}
    with pytest.raises(ValueError, match=r"'box_image' has different shapes .*\(3, 2, 2\), \(3, 4, 4\)"):
        collate([boxed("a", 1), larger], positions=[0, 1], rows=[0, 1])


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Three images of 10 x 4 pixels, of which a pixel says where it is, with 3, 0 and 1 boxes."""
    pixels = np.zeros((4, 10, 3), dtype=np.uint8)
    pixels[..., 0], pixels[..., 1] = 10 * np.arange(10), 10 * np.arange(4)[:, None]
    (tmp_path / "a.png").write_bytes(encode(Image.fromarray(pixels), "PNG"))
    boxes = [{"box": [i / 10, 0.0, (i + 1) / 10, 0.25], "phrase": f"part {i}"} for i in range(3)]
    rows = [{"image": "a.png", "caption": f"whole {n}", "boxes": boxes[:n]} for n in (3, 0, 1)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path, **settings: Any) -> ImageTextTable:
    return ImageTextTable(path, image_transform=Squeeze(1), tokenizer=Letters(), **settings)


def test_a_table_gives_the_boxes_of_its_rows(table: Path) -> None:
    data = read(table, boxes="all")
    samples = [data.sample(row, np.random.default_rng(row)) for row in range(3)]
    batch = collate(samples, positions=[0, 1, 2], rows=[0, 1, 2])
    assert batch["box_owner"].tolist() == [0, 0, 0, 2]
    assert batch["box_image"][:, 0, 0, 0].tolist() == [0, 10, 20, 0]
    assert [text_of(row) for row in batch["box_text"]] == ["part 0", "part 1", "part 2", "part 0"]
    torch.testing.assert_close(batch["box_corners"][1], torch.tensor([0.1, 0.0, 0.2, 0.25]))


def test_one_box_of_a_table_has_no_owner_and_a_row_without_is_bad(table: Path) -> None:
    data = read(table, boxes="one")
    sample = data.sample(0, np.random.default_rng(0))
    assert sample["box_image"].shape == (3, 1, 1) and sample.keys() == {
        "key", "image", "text", "box_image", "box_text",
    }  # fmt: skip
    number = int(text_of(sample["box_text"]).split()[1])
    assert sample["box_image"][0, 0, 0].item() == 10 * number
    with pytest.raises(BadSample, match=r"row 1 .*: no boxes"):
        data.sample(1, np.random.default_rng(0))


def test_the_choice_of_boxes_is_part_of_the_fingerprint(table: Path) -> None:
    several = [{}, {"boxes": "all"}, {"boxes": "first", "max_boxes": 1}, {"boxes": "first", "max_boxes": 2}]
    assert len({read(table, **settings).fingerprint for settings in several}) == 4
    with pytest.raises(ValueError, match="max_boxes: got 2, but boxes is None"):
        read(table, max_boxes=2)


@pytest.mark.parametrize(
    ("boxes", "reason"),
    [
        ("all of it", "boxes is str, expected a list"),
        ([{"box": [0.5, 0.0, 0.2, 1.0], "phrase": "x"}], r"boxes is not a list of \{box: \[left, top"),
        ([{"box": [0.0, 0.0, 1.0], "phrase": "x"}], r"boxes is not a list of \{box: \[left, top"),
        ([{"box": [0.0, 0.0, 1.0, 1.0], "phrase": " "}], "empty phrase"),
    ],
)
def test_broken_boxes_are_bad_samples(table: Path, boxes: Any, reason: str) -> None:
    table.write_text(json.dumps({"image": "a.png", "caption": "c", "boxes": boxes}) + "\n")
    with pytest.raises(BadSample, match=reason):
        read(table, boxes="all").sample(0, np.random.default_rng(0))


def test_the_whole_and_each_box_are_cropped_on_their_own(table: Path) -> None:
    """Four crops of the same image differ, and are the same again for the same position."""
    boxes = [{"box": [0.0, 0.0, 1.0, 1.0], "phrase": f"all {i}"} for i in range(3)]
    (table.parent / "b.jpg").write_bytes(jpeg(0))
    table.write_text(json.dumps({"image": "b.jpg", "caption": "c", "boxes": boxes}) + "\n")
    data = read(table, boxes="all")
    data.image_transform = RandomResizedCrop(8, scale=(0.2, 0.8))
    first, again = (data.sample(0, np.random.default_rng(3)) for _ in range(2))
    crops = [first["image"], *first["box_image"]]
    assert all(not torch.equal(a, b) for i, a in enumerate(crops) for b in crops[:i])
    assert torch.equal(first["box_image"], again["box_image"])


def test_positions_decide_whatever_the_processes(table: Path) -> None:
    """Two processes together read what one reads."""

    def phrases(rank: int, world: int) -> list[list[str]]:
        data = read(table, boxes="random", max_boxes=2)
        loader = Loader(data, global_batch_size=4, rank=rank, world_size=world, num_workers=0, seed=0)
        batches = [next(loader) for _ in range(3)]
        return [[text_of(row) for row in batch["box_text"] if len(row)] for batch in batches]

    together = [a + b for a, b in zip(phrases(0, 2), phrases(1, 2), strict=True)]
    assert together == phrases(0, 1) and sum(map(len, together)) > 3
