"""Processed GRIT shards in their real layout."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hypvl.data.batch import collate
from hypvl.data.grit.mapper import GritMapper
from hypvl.data.loader import Loader
from hypvl.data.sample import BadSample
from hypvl.data.shards import ImageTextShards
from hypvl.data.transforms import Squeeze
from tests.data.helpers import Letters, jpeg, text_of, write_tar


def sample(seed: int = 0, boxes: int = 2, **changes: bytes | None) -> dict[str, bytes]:
    """The members of one sample; in the names of changes a ``_`` stands for the dot."""
    members: dict[str, bytes] = {
        "child.jpg": jpeg(seed),
        "child.txt": f"caption {seed}".encode(),
        "numparents.txt": str(boxes).encode(),
    }
    for i in range(boxes):
        members[f"parent{i:03d}.jpg"] = jpeg(1000 + 10 * seed + i, 20, 12)
        members[f"parent{i:03d}.txt"] = f"phrase {seed} {i}".encode()
    for name, data in changes.items():
        if data is None:
            del members[name.replace("_", ".")]
        else:
            members[name.replace("_box_txt", "_box.txt") if "_box_" in name else name.replace("_", ".")] = (
                data
            )
    return members


def draw(members: dict[str, bytes], seed: int = 0, mapper: GritMapper | None = None) -> dict[str, Any]:
    mapper = GritMapper() if mapper is None else mapper
    return mapper("k", members, np.random.default_rng(seed))


def test_one_box_is_drawn_with_its_own_phrase() -> None:
    members = sample(3, boxes=12)
    drawn = [draw(members, seed) for seed in range(600)]
    for fields in drawn:
        assert fields["image"] == members["child.jpg"]
        assert fields["caption"] == "caption 3"
        number = int(fields["box_text"].split()[-1])
        assert fields["box_image"] == members[f"parent{number:03d}.jpg"]
    numbers = [f["box_text"] for f in drawn]
    # 50 each on average; five standard deviations are 34
    assert all(abs(numbers.count(f"phrase 3 {i}") - 50) < 34 for i in range(12))


def test_one_box_draws_what_it_always_did() -> None:
    """Frozen, with the repr that goes into the fingerprint: older runs resume."""
    drawn = [draw(sample(boxes=12), seed)["box_text"] for seed in range(6)]
    assert drawn == [f"phrase 0 {number}" for number in (10, 5, 10, 9, 8, 8)]
    assert repr(GritMapper()) == "GritMapper()"
    assert repr(GritMapper("first", 5)) == "GritMapper(boxes='first', max_boxes=5)"


def test_several_boxes_with_their_places() -> None:
    members = sample(3, boxes=7, parent001_box_txt=b"0.25 0 0.5 1\n")
    fields = draw(members, mapper=GritMapper("first", 2))
    assert fields["box_image"] == [members["parent000.jpg"], members["parent001.jpg"]]
    assert fields["box_text"] == ["phrase 3 0", "phrase 3 1"] and fields["box_owner"].tolist() == [0, 0]
    assert fields["box_corners"][0].isnan().all()  # this TAR does not say where
    assert fields["box_corners"][1].tolist() == [0.25, 0.0, 0.5, 1.0]
    assert len(draw(members, mapper=GritMapper("all"))["box_text"]) == 7
    drawn = [draw(members, seed, GritMapper("random", 2))["box_text"] for seed in range(100)]
    assert all(len(texts) == 2 and texts == sorted(texts) for texts in drawn)
    assert {text for texts in drawn for text in texts} == {f"phrase 3 {i}" for i in range(7)}
    none = draw(sample(boxes=0), mapper=GritMapper("all"))
    assert none["box_image"] == [] and none["box_corners"].shape == (0, 4)


@pytest.mark.parametrize("text", [b"0 0 1", b"0 0 1 x", b"0.5 0 0.5 1", b"0 0 1 1.5", b"nan 0 1 1"])
def test_a_place_that_is_none_is_a_bad_sample(text: bytes) -> None:
    with pytest.raises(BadSample, match=r"parent000_box.txt is '.*', expected left, top, right and bottom"):
        draw(sample(boxes=1, parent000_box_txt=text), mapper=GritMapper("all"))


def test_text_is_stripped_and_utf8() -> None:
    fields = draw(sample(boxes=1, child_txt="  ein Gebäude\n".encode(), numparents_txt=b" 1\n"))
    assert fields["caption"] == "ein Gebäude"
    assert fields["box_text"] == "phrase 0 0"


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (sample(child_jpg=None), r"missing child.jpg \(it has child.txt, numparents.txt, parent000.jpg"),
        (sample(child_jpg=b""), "empty child.jpg"),
        (sample(child_txt=None), "missing child.txt"),
        (sample(child_txt=b" \n"), "empty child.txt"),
        (sample(child_txt=b"\xff"), r"child.txt is not UTF-8 \("),
        (sample(numparents_txt=None), "missing numparents.txt"),
        (sample(numparents_txt=b"two"), "numparents.txt is 'two', expected a number"),
        (sample(numparents_txt=b"-1"), "numparents.txt is '-1', expected a number"),
        (sample(numparents_txt="²".encode()), "numparents.txt is '²', expected a number"),
        (sample(numparents_txt=b"0"), "no boxes, numparents.txt is 0"),
        (sample(boxes=1, parent000_jpg=None), "missing parent000.jpg"),
        (sample(boxes=1, parent000_txt=None), "missing parent000.txt"),
        (sample(boxes=1, parent000_txt=b""), "empty parent000.txt"),
        ({}, r"missing numparents.txt \(it has nothing\)"),
    ],
)
def test_broken_members_are_bad_samples(members: dict[str, bytes], reason: str) -> None:
    with pytest.raises(BadSample, match=f"k: {reason}"):
        draw(members)


def test_a_count_above_the_boxes_there_names_the_missing_one() -> None:
    reasons = set()
    for seed in range(40):
        try:
            draw(sample(boxes=1, numparents_txt=b"2"), seed)
        except BadSample as error:
            reasons.add(error.reason.split(" (")[0])
    assert reasons == {"missing parent001.jpg"}


def shard(path: Path, samples: list[dict[str, bytes]]) -> Path:
    names = [(f"{i:09d}.{name}", data) for i, members in enumerate(samples) for name, data in members.items()]
    return write_tar(path, names)


def test_shards_give_boxes_in_the_batch(tmp_path: Path) -> None:
    shard(tmp_path / "00000.tar", [sample(i, boxes=1 + i) for i in range(3)])
    dataset = ImageTextShards(str(tmp_path / "*.tar"), GritMapper(), Squeeze(16), Letters())
    assert len(dataset) == 3
    samples = [dataset.sample(row, np.random.default_rng(5)) for row in range(3)]
    batch = collate(samples, positions=[0, 1, 2], rows=[0, 1, 2])
    assert batch["image"].shape == batch["box_image"].shape == (3, 3, 16, 16)
    assert [text_of(row) for row in batch["text"]] == ["caption 0", "caption 1", "caption 2"]
    assert [text_of(row).split()[1] for row in batch["box_text"]] == ["0", "1", "2"]
    assert not np.array_equal(batch["image"], batch["box_image"])


def test_the_loader_replaces_broken_samples_and_says_why(tmp_path: Path) -> None:
    good = [sample(i) for i in range(6)]
    broken = [sample(7, numparents_txt=b"0"), sample(8, boxes=1, parent000_jpg=b"no image")]
    shard(tmp_path / "00000.tar", good + broken)
    dataset = ImageTextShards(
        str(tmp_path / "*.tar"), GritMapper(), Squeeze(16), Letters(), max_bad_fraction=0.9
    )
    loader = Loader(dataset, global_batch_size=8, rank=0, world_size=1, num_workers=0, seed=0)
    batch = next(loader)
    assert len(batch["image"]) == 8
    reasons = {reason.split(" (")[0] for _, reason in batch["bad"]}
    assert reasons == {"no boxes, numparents.txt is 0", "box_image: cannot decode the image"}
    assert set(batch["index"].tolist()) <= set(range(6))
