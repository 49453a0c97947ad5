"""The demo data set: what is in it, that it repeats itself, and that evaluation stays unseen in training."""

import hashlib
import itertools
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hypvl.data.demo.build as demo_module
from hypvl.data.demo.build import (
    STAMP,
    DemoArguments,
    digit_samples,
    evaluation_scenes,
    make_demo_data,
    training_scenes,
)
from hypvl.data.demo.captions import DIGIT_WORDS
from hypvl.data.demo.scenes import heldout_combinations, make_scene
from hypvl.errors import DataError

SMALL = DemoArguments(num_train=36, num_test=24, num_digits=200)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "demo"
    assert make_demo_data(folder, SMALL)
    return folder


# Every fifth digit of each class is kept for testing; of the first 200 scans, of each class 18 to 22.
TRAIN_DIGITS = 163


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def training_records(folder: Path) -> dict[str, dict]:
    records = {}
    for shard in sorted((folder / "train").glob("*.tar")):
        with tarfile.open(shard) as archive:
            for name in archive.getnames():
                if name.endswith(".json"):
                    content = archive.extractfile(name)
                    assert content is not None
                    records[name.removesuffix(".json")] = json.loads(content.read())
    return records


def test_the_same_arguments_give_the_same_bytes_and_another_seed_others(demo: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    make_demo_data(again, SMALL)
    make_demo_data(other, DemoArguments(seed=1, num_train=36, num_test=24, num_digits=200))
    assert digest(again) == digest(demo)
    assert digest(other)["train/scenes-00000.tar"] != digest(demo)["train/scenes-00000.tar"]
    assert digest(other)["train/digits-00000.tar"] != digest(demo)["train/digits-00000.tar"]


def test_a_second_call_touches_nothing(demo: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*")}
    assert not make_demo_data(demo, SMALL)
    assert before == {path: path.stat().st_mtime_ns for path in demo.rglob("*")}


def test_other_arguments_and_interrupted_runs_are_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    tiny = DemoArguments(num_train=12, num_test=4, num_digits=100)
    make_demo_data(folder, tiny)
    stray = folder / "train" / "scenes-99999.tar"
    stray.write_bytes(b"left over from more shards")
    (folder / STAMP).write_text('{"unfin')
    assert make_demo_data(folder, tiny)
    assert not stray.exists()
    assert make_demo_data(folder, DemoArguments(num_train=12, num_test=6, num_digits=100))
    assert len(list((folder / "eval" / "scenes").glob("*.png"))) == 6


def test_a_folder_of_someone_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "train" / "precious.tar"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(DataError, match=f"{re.escape(str(tmp_path))} holds other files"):
        make_demo_data(tmp_path, SMALL)
    assert mine.read_text() == "mine"
    with pytest.raises(DataError, match="is a file"):
        make_demo_data(mine, SMALL)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"num_train": 3}, "num_train is 3; expected at least 12"),
        ({"num_test": 0}, "num_test is 0; expected at least 4"),
        ({"num_digits": 1798}, "num_digits is 1798; expected 100 to 1797"),
    ],
)
def test_arguments_out_of_range_are_named(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        DemoArguments(**arguments)


def test_training_shards_hold_redcaps_style_samples(demo: Path) -> None:
    shards = sorted((demo / "train").glob("*.tar"))
    assert len(shards) >= 4
    for shard in shards:
        with tarfile.open(shard) as archive:
            names = archive.getnames()
            assert names[0::2] == [name.removesuffix(".json") + ".png" for name in names[1::2]]
            first = archive.extractfile(names[0])
            assert first is not None
            pil_image = Image.open(first)
            assert pil_image.size == (64, 64)
            assert pil_image.mode == "RGB"
            assert {member.mtime for member in archive} == {0}
    records = training_records(demo)
    assert len(records) == 36 + TRAIN_DIGITS
    kinds = [record["kind"] for record in records.values()]
    assert (kinds.count("single_seen"), kinds.count("pair")) == (22, 14)  # 0.6 x 36 with one object
    assert all(record["subreddit"] and record["caption"] for record in records.values())


def test_digits_split_does_not_depend_on_the_seed() -> None:
    train, test = digit_samples(0, limit=300)
    other_train, other_test = digit_samples(5, limit=300)
    assert [key for key, _, _ in train] == [key for key, _, _ in other_train]
    assert [(key, digit) for key, _, digit in test] == [(key, digit) for key, _, digit in other_test]
    assert not {key for key, _, _ in train} & {key for key, _, _ in test}
    assert {png for _, png, _ in train}.isdisjoint({png for _, png, _ in other_train})
    assert all(len({c["text"] for c in record["captions"]}) >= 12 for _, _, record in train)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_fifth_of_each_digit_is_for_testing() -> None:
    train, test = digit_samples(0)
    assert len(train) + len(test) == 1797
    labels = np.bincount([digit for _, _, digit in test])
    assert labels.min() >= 34  # of 174 to 183 scans of each
    assert labels.max() <= 36


def test_heldout_combinations_are_in_no_training_scene() -> None:
    heldout = set(heldout_combinations())
    arguments = DemoArguments(num_train=150, num_test=40)
    seen = [(o.color, o.shape) for _, scene in training_scenes(arguments) for o in scene.objects]
    assert not heldout & set(seen)
    kinds: dict[str, set[tuple[str, str]]] = {}
    for _, scene in evaluation_scenes(arguments):
        kinds.setdefault(scene.kind, set()).update((o.color, o.shape) for o in scene.objects)
    assert kinds["single_heldout"] == heldout
    assert not heldout & (kinds["single_seen"] | kinds["pair"])


def test_captions_of_retrieval_scenes_never_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    # Always the first combination for the first object: 4,320 captions are left, so 200 draws do meet again.
    monkeypatch.setattr(demo_module, "make_scene", lambda kind, index, rng: make_scene(kind, 0, rng))
    arguments = DemoArguments(num_test=400)
    drawn = [make_scene("pair", 0, np.random.default_rng([0, 3, i, 0])).caption for i in range(200)]
    scenes = itertools.islice(evaluation_scenes(arguments), 200)
    captions = [scene.caption for _, scene in scenes]
    assert len(set(drawn)) < 200
    assert len(set(captions)) == 200


def test_training_singles_are_balanced_over_combinations() -> None:
    arguments = DemoArguments(num_train=140)
    singles = [s.objects[0] for _, s in training_scenes(arguments) if s.kind == "single_seen"]
    counts: dict[tuple[str, str], int] = {}
    for item in singles:
        counts[item.color, item.shape] = counts.get((item.color, item.shape), 0) + 1
    assert len(counts) == 42
    assert set(counts.values()) == {2}  # 0.6 x 140 = 84 scenes over 42 combinations


def test_no_evaluation_prompt_is_a_training_caption(demo: Path) -> None:
    captions = {entry["text"] for record in training_records(demo).values() for entry in record["captions"]}
    _, _, record = digit_samples(0, limit=100)[0][0]
    assert len(captions) > 200
    assert record["captions"][0]["text"] in captions  # type: ignore[index]
    for path in (demo / "eval").glob("*/classes.json"):
        for prompts in json.loads(path.read_text())["prompts"].values():
            assert not captions & set(prompts)


@pytest.mark.parametrize(
    ("name", "classes", "images"),
    [
        ("digits", 10, 200 - TRAIN_DIGITS),
        ("scenes_color_heldout", 7, 6),
        ("scenes_color_seen", 7, 6),
        ("scenes_shape_heldout", 7, 6),
        ("scenes_shape_seen", 7, 6),
    ],
)
def test_classification_sets_are_image_folders_in_the_order_of_their_json(
    demo: Path, name: str, classes: int, images: int
) -> None:
    folder = demo / "eval" / name
    notes = json.loads((folder / "classes.json").read_text())
    assert notes["classes"] == sorted(path.name for path in folder.iterdir() if path.is_dir())
    assert list(notes["prompts"]) == notes["classes"]
    assert len(notes["classes"]) == classes
    assert all(len(set(prompts)) >= 3 for prompts in notes["prompts"].values())
    assert len(list(folder.glob("*/*.png"))) == images
    if name == "digits":
        assert set(notes["classes"]) == set(DIGIT_WORDS)


def test_retrieval_lines_name_images_and_captions_that_differ(demo: Path) -> None:
    path = demo / "eval" / "retrieval" / "scenes.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 12
    assert all((path.parent / line["image"]).is_file() for line in lines)
    captions = [line["captions"][0] for line in lines]
    assert len(set(captions)) == 12


def test_hierarchy_tree_and_pool_know_each_text_of_a_chain(demo: Path) -> None:
    scenes = json.loads((demo / "eval" / "hierarchy.json").read_text())["scenes"]
    tree = json.loads((demo / "eval" / "tree.json").read_text())
    pool = json.loads((demo / "text_pool.json").read_text())["captions"]
    levels = json.loads((demo / "text_pool_levels.json").read_text())["levels"]
    assert len(scenes) == 24
    assert list(levels) == pool
    assert len(set(pool)) == len(pool)
    for scene in scenes:
        assert (demo / "eval" / scene["image"]).is_file()
        assert [levels[text] for text in scene["chain"]] == [1, 2, 3, 4]
        general, shape, colored, _ = scene["chain"]
        assert tree[colored]["parents"][0] == shape
        assert tree[shape]["parents"] == [general]


def test_images_on_disk_are_the_scenes(demo: Path) -> None:
    key, scene = next(iter(evaluation_scenes(SMALL)))
    written = np.asarray(Image.open(demo / "eval" / "scenes" / f"{key}.png"))
    np.testing.assert_array_equal(written, np.asarray(scene.image))
