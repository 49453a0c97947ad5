"""Which caption a training step sees, and which box, negatives and short caption."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from hypvl.data.batch import collate
from hypvl.data.demo.mapper import DEMO_CLASSES, DemoMapper
from hypvl.data.demo.scenes import make_scene
from hypvl.data.sample import BadSample
from hypvl.data.shards import ImageTextShards
from hypvl.data.transforms import Squeeze
from tests.data.helpers import Letters, text_of, write_tar

CAPTIONS = [
    {"text": "a shape", "level": 1},
    {"text": "a circle", "level": 2},
    {"text": "there is a circle", "level": 2},
    {"text": "a red circle", "level": 3},
    {"text": "a large red circle", "level": 4},
]


def members(captions: object = CAPTIONS, **changes: bytes) -> dict[str, bytes]:
    return {"png": b"image", "json": json.dumps({"captions": captions}).encode()} | changes


def shares(mapper: DemoMapper, notes: dict[str, bytes], draws: int = 4000) -> dict[str, float]:
    texts = [mapper("k", notes, np.random.default_rng(i))["caption"] for i in range(draws)]
    return {text: texts.count(text) / draws for text in set(texts)}


def test_levels_are_drawn_by_weight_and_captions_of_a_level_evenly() -> None:
    result = shares(DemoMapper(level_weights=(1, 4, 0, 5)), members())
    assert set(result) == {"a shape", "a circle", "there is a circle", "a large red circle"}
    # 4,000 draws: four standard deviations are at most 0.032
    assert result["a shape"] == pytest.approx(0.1, abs=0.032)
    assert result["a circle"] == pytest.approx(0.2, abs=0.032)
    assert result["a large red circle"] == pytest.approx(0.5, abs=0.032)


def test_a_level_the_sample_lacks_leaves_the_others_in_proportion() -> None:
    result = shares(DemoMapper(level_weights=(1, 0, 3, 96)), members(CAPTIONS[:4]))
    assert set(result) == {"a shape", "a red circle"}
    assert result["a red circle"] == pytest.approx(0.75, abs=0.032)


def test_a_sample_is_a_function_of_the_generator() -> None:
    mapper = DemoMapper()
    first, second = (mapper("k", members(), np.random.default_rng(3)) for _ in range(2))
    assert first == second
    assert first["image"] == b"image"


@pytest.mark.parametrize(
    ("notes", "reason"),
    [
        (members("a circle"), "captions is not a list"),
        ({"png": b"", "json": b"{}"}, "captions is not a list"),
        (members([{"text": "a circle", "level": 9}]), r"levels \[9\]"),
        (members([{"text": "", "level": 2}]), "empty captions"),
        (members(json=b"{"), "broken json"),
        ({"json": members()["json"]}, "missing image"),
    ],
)
def test_unusable_samples_are_bad(notes: dict[str, bytes], reason: str) -> None:
    with pytest.raises(BadSample, match=reason):
        DemoMapper()("k", notes, np.random.default_rng(0))


@pytest.mark.parametrize("weights", [(1, 2, 3), (0, 0, 0, 0), (1, -1, 1, 1), (1, 1, 1, float("nan"))])
def test_weights_that_are_none_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"level_weights(: got| is) "):
        DemoMapper(level_weights=weights)  # type: ignore[arg-type]


def test_box_levels_need_boxes_and_objects() -> None:
    with pytest.raises(ValueError, match=r"box_level_weights is \(1, 1, 1, 1\), but boxes is False"):
        DemoMapper(box_level_weights=(1, 1, 1, 1))
    with pytest.raises(ValueError, match=r"box_level_weights(: got| is) "):
        DemoMapper(boxes=True, box_level_weights=(1, 1, 1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_boxes: got 2, but boxes is False"):
        DemoMapper(max_boxes=2)
    with pytest.raises(ValueError, match="boxes: got 'some'"):
        DemoMapper(boxes="some")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_boxes: got 2 with boxes='one'"):
        DemoMapper(boxes=True, max_boxes=2)
    mapper = DemoMapper(boxes=True, box_level_weights=(1, 1, 1, 1))
    assert repr(mapper).endswith("boxes=True, box_level_weights=(1.0, 1.0, 1.0, 1.0))")
    for objects in ([], None, [{"shape": "circle"}] * 2):
        with pytest.raises(BadSample, match="objects is not a list"):
            draw(mapper, scene(objects=objects))


def test_weights_may_come_as_a_list() -> None:
    assert DemoMapper(level_weights=[1, 2, 3, 4]).level_weights == (1.0, 2.0, 3.0, 4.0)  # type: ignore[arg-type]


def pil_image(width: int = 8, height: int = 8) -> bytes:
    """Red grows to the right, green downwards, by 10 a pixel: a pixel says where it came from."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0], pixels[..., 1] = 10 * np.arange(width), 10 * np.arange(height)[:, None]
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def pixels_of(image: bytes | Tensor) -> np.ndarray:
    if isinstance(image, Tensor):
        return image.permute(1, 2, 0).numpy()
    return np.asarray(Image.open(io.BytesIO(image)))


NEGATIVES = [
    {"type": "object", "text": "a large red star"},
    {"type": "attribute", "text": "a large blue circle"},
    {"type": "attribute", "text": "a small red circle"},
]
BOXES = [
    {"box": [0.0, 0.0, 0.5, 0.25], "phrase": "a large red circle"},
    {"box": [0.3, 0.5, 1.0, 1.0], "phrase": "a small star"},
]


def scene(**changes: object) -> dict[str, bytes]:
    notes: dict[str, object] = {
        "caption": "a large red circle", "captions": CAPTIONS, "boxes": BOXES, "negatives": NEGATIVES,
    }  # fmt: skip
    return {"png": pil_image(), "json": json.dumps(notes | changes).encode()}


DIGIT = {"png": pil_image(), "json": json.dumps({"captions": CAPTIONS[:4]}).encode()}


def draw(mapper: DemoMapper, notes: dict[str, bytes], seed: int = 0) -> dict[str, Any]:
    return mapper("k", notes, np.random.default_rng(seed))


def test_the_default_draws_what_it_drew_before_the_switches() -> None:
    """Frozen, with the repr that goes into the fingerprint: older runs resume."""
    drawn = [DemoMapper()("k", members(), np.random.default_rng(i))["caption"] for i in range(6)]
    assert drawn == [
        "a red circle", "a red circle", "a circle", "a circle", "a large red circle", "a large red circle",
    ]  # fmt: skip
    assert set(draw(DemoMapper(), scene())) == {"image", "caption"}
    assert repr(DemoMapper()) == "DemoMapper(level_weights=(0.05, 0.35, 0.35, 0.25))"
    assert repr(DemoMapper((1, 0, 0, 1), boxes=True, short=True)) == (
        "DemoMapper(level_weights=(1.0, 0.0, 0.0, 1.0), boxes=True, short=True)"
    )


def test_a_box_is_cut_out_with_its_phrase() -> None:
    result = {
        f["box_text"]: f["box_image"] for f in (draw(DemoMapper(boxes=True), scene(), i) for i in range(20))
    }
    assert set(result) == {"a large red circle", "a small star"}
    first, second = pixels_of(result["a large red circle"]), pixels_of(result["a small star"])
    assert first.shape == (2, 4, 3)  # 8 x 8 pixels: x in [0, 4), y in [0, 2)
    assert (first[0, 0, 0], first[1, 3, 0], first[1, 3, 1]) == (0, 30, 10)
    assert second.shape == (4, 6, 3)  # x from 2.4, so from pixel 2
    assert second[0, 0].tolist() == [20, 40, 0]


def test_a_digit_is_its_own_box() -> None:
    fields = draw(DemoMapper(boxes=True), DIGIT)
    assert fields["box_image"] == DIGIT["png"]
    assert fields["box_text"] in ("a circle", "there is a circle")


def test_one_box_draws_what_it_always_did() -> None:
    """Frozen, as the repr is: older runs resume."""
    for boxes in (True, "one"):
        mapper = DemoMapper(boxes=boxes, box_level_weights=(0, 1, 2, 1))
        drawn = [draw(mapper, scene(objects=OBJECTS), i)["box_text"] for i in range(4)]
        assert drawn == [
            "a star that is blue", "we see a circle", "a drawing of an orange shape", "there is a blue star",
        ]  # fmt: skip
        assert repr(mapper).endswith("boxes=True, box_level_weights=(0.0, 1.0, 2.0, 1.0))")


def test_several_boxes_of_a_scene_and_none_of_a_digit() -> None:
    fields = draw(DemoMapper(boxes="all"), scene())
    assert fields["box_text"] == ["a large red circle", "a small star"]
    assert [image.shape for image in fields["box_image"]] == [(3, 2, 4), (3, 4, 6)]
    assert fields["box_owner"].tolist() == [0, 0]
    assert fields["box_corners"].tolist() == [pytest.approx(box["box"]) for box in BOXES]
    first = draw(DemoMapper(boxes="first", max_boxes=1), scene())
    assert first["box_text"] == ["a large red circle"]
    drawn = [draw(DemoMapper(boxes="random", max_boxes=1), scene(), i)["box_text"] for i in range(20)]
    assert {text for [text] in drawn} == {"a large red circle", "a small star"}
    digit = draw(DemoMapper(boxes="all"), DIGIT)
    assert digit["box_image"] == digit["box_text"] == digit["box_owner"].tolist() == []
    assert repr(DemoMapper((1, 0, 0, 1), boxes="random", max_boxes=2, short=True)) == (
        "DemoMapper(level_weights=(1.0, 0.0, 0.0, 1.0), boxes='random', max_boxes=2, short=True)"
    )


def test_a_batch_of_scenes_and_digits_has_the_boxes_of_the_scenes(tmp_path: Path) -> None:
    key_values = [("digit-0", DIGIT), ("scene-0", scene()), ("digit-1", DIGIT)]
    write_tar(tmp_path / "a.tar", [(f"{k}.{ext}", data) for k, m in key_values for ext, data in m.items()])
    mapper = DemoMapper(boxes="all", negatives=True)
    shards = ImageTextShards(str(tmp_path / "a.tar"), mapper, Squeeze(8), Letters())
    samples = [shards.sample(row, np.random.default_rng(row)) for row in range(3)]
    batch = collate(samples, positions=[0, 1, 2], rows=[0, 1, 2])
    assert batch["box_owner"].tolist() == [1, 1] and batch["box_image"].shape == (2, 3, 8, 8)
    assert [text_of(row) for row in batch["box_text"]] == ["a large red circle", "a small star"]
    assert batch["negative_text"].shape[0] == 9
    none = collate(samples[:1], positions=[0], rows=[0])
    assert none["box_image"].shape == (0, 3, 8, 8) and none["box_owner"].tolist() == []


OBJECTS = [
    {"shape": "circle", "color": "orange", "size": "large", "texture": "plain"},
    {"shape": "star", "color": "blue", "size": "small", "texture": "dotted"},
]


def test_a_box_may_have_a_caption_of_its_own_object_at_any_level() -> None:
    mapper = DemoMapper(boxes=True, box_level_weights=(0, 1, 2, 1))
    drawn = [draw(mapper, scene(objects=OBJECTS), i) for i in range(400)]
    wide = {f["box_text"] for f in drawn if pixels_of(f["box_image"]).shape[1] == 6}  # the star's box
    assert {"a star", "a blue star", "a small dotted blue star"} <= wide
    assert not any("circle" in text or "orange" in text for text in wide)
    texts = [f["box_text"] for f in drawn]
    assert "an orange circle" in texts
    assert not any(text.endswith(" a shape") or text == "a shape" for text in texts)
    full = sum("large" in text or "small" in text for text in texts) / len(texts)
    assert full == pytest.approx(0.25, abs=0.09)  # four standard deviations
    digits = {draw(mapper, DIGIT, i)["box_text"] for i in range(100)}
    assert digits == {"a circle", "there is a circle", "a red circle"}


def test_negatives_come_by_type_and_refer_to_the_full_caption() -> None:
    mapper = DemoMapper(level_weights=(1, 1, 1, 0), negatives=True)
    drawn = [draw(mapper, scene(), i) for i in range(20)]
    assert {f["caption"] for f in drawn} == {"a large red circle"}
    for fields in drawn:
        relation, attribute, thing = fields["negative_text"]
        assert relation == "a large red circle"  # the scene has none of this type
        assert attribute in ("a large blue circle", "a small red circle")
        assert thing == "a large red star"
        assert fields["negative_mask"].tolist() == [False, True, True]
        assert fields["negative_mask"].dtype == torch.bool
    assert {f["negative_text"][1] for f in drawn} == {"a large blue circle", "a small red circle"}


def test_a_digit_has_no_negatives_and_keeps_its_captions() -> None:
    drawn = [draw(DemoMapper(negatives=True), DIGIT, i) for i in range(30)]
    assert {f["caption"] for f in drawn} == {c["text"] for c in CAPTIONS[:4]}
    for fields in drawn:
        assert fields["negative_text"] == [fields["caption"]] * 3
        assert not fields["negative_mask"].any()


def test_the_short_caption_is_more_general() -> None:
    level = {str(c["text"]): int(str(c["level"])) for c in CAPTIONS}
    drawn = [draw(DemoMapper(short=True), scene(), i) for i in range(300)]
    assert {f["caption"] for f in drawn} == {text for text in level if level[text] > 1}
    assert all(level[f["short_text"]] < level[f["caption"]] for f in drawn)
    full = [f["short_text"] for f in drawn if level[f["caption"]] == 4]
    assert {level[text] for text in full} == {1, 2, 3}


def test_switches_do_not_change_one_another() -> None:
    alone = [
        draw(DemoMapper(negatives=True), scene(), i)["negative_text"] for i in range(10)
    ]  # fmt: skip
    every = [draw(DemoMapper(boxes=True, negatives=True, short=True), scene(), i) for i in range(10)]
    assert [f["negative_text"] for f in every] == alone
    assert [f["box_text"] for f in every] == [
        draw(DemoMapper(boxes=True), scene(), i)["box_text"] for i in range(10)
    ]


@pytest.mark.parametrize(
    ("switch", "notes", "reason"),
    [
        ("boxes", scene(boxes=[{"box": [0, 0, 1], "phrase": "a"}]), "boxes is not a list"),
        ("boxes", scene(boxes=[{"box": [0.5, 0, 0.5, 1], "phrase": "a"}]), "boxes is not a list"),
        ("boxes", scene(boxes=[{"box": [0, 0, 1, 1], "phrase": ""}]), "empty phrase"),
        ("boxes", scene() | {"png": b"\x89PNG broken"}, "cannot cut a box"),
        ("boxes", scene(boxes=[], captions=CAPTIONS[3:]), r"it has levels \[\]"),
        ("boxes", scene(boxes={"a": 1}), "boxes is not a list"),
        ("negatives", scene(negatives=[{"type": "colour", "text": "a"}]), "negatives is not a list"),
        ("negatives", scene(negatives=[{"type": "object", "text": ""}]), "negatives is not a list"),
        ("negatives", scene(caption=None), "missing caption"),
        ("short", scene(captions=CAPTIONS[:1]), r"it has levels \[1\]"),
    ],
)  # fmt: skip
def test_a_switch_refuses_samples_it_cannot_use(switch: str, notes: dict[str, bytes], reason: str) -> None:
    with pytest.raises(BadSample, match=reason):
        draw(DemoMapper(**{switch: True}), notes)  # type: ignore[arg-type]


def test_a_batch_has_the_shapes_of_the_contract(tmp_path: Path) -> None:
    key_values = [("scene-0", scene()), ("digit-0", DIGIT)]
    write_tar(tmp_path / "a.tar", [(f"{k}.{ext}", data) for k, m in key_values for ext, data in m.items()])
    mapper = DemoMapper(boxes=True, negatives=True, short=True)
    shards = ImageTextShards(str(tmp_path / "a.tar"), mapper, Squeeze(8), Letters())
    samples = [shards.sample(row, np.random.default_rng(row)) for row in range(2)]
    batch = collate(samples, positions=[0, 1], rows=[0, 1])
    assert batch["box_image"].shape == (2, 3, 8, 8)
    assert batch["negative_text"].shape[0] == 6  # sample-major
    assert text_of(batch["negative_text"][2]) == "a large red star"
    assert text_of(batch["negative_text"][3]) == text_of(batch["text"][1])
    assert batch["negative_mask"].tolist() == [[False, True, True], [False, False, False]]
    assert batch["short_text"].shape[0] == batch["box_text"].shape[0] == 2


def test_the_generated_demo_has_what_the_switches_ask_for() -> None:
    """A drawn pair gives all three types; each negative differs from the caption."""
    drawn = make_scene("pair", 3, np.random.default_rng(0))
    out = io.BytesIO()
    drawn.image.save(out, "PNG")
    notes = {"png": out.getvalue(), "json": json.dumps(drawn.record()).encode()}
    fields = draw(DemoMapper(boxes=True, negatives=True, short=True), notes)
    assert fields["caption"] == drawn.caption
    assert fields["negative_mask"].all()
    assert len({fields["caption"], *fields["negative_text"]}) == 4
    assert fields["box_text"] in fields["caption"]


def test_labels_tell_digits_and_single_objects_apart() -> None:
    mapper = DemoMapper(labels=True)
    assert mapper.classes == DEMO_CLASSES and DemoMapper().classes == ()
    assert len(DEMO_CLASSES) == len(set(DEMO_CLASSES)) == 10 + 7 * 7

    def label(notes: dict[str, Any]) -> int:
        content = {"captions": CAPTIONS, **notes}
        fields = mapper("k", {"png": b"", "json": json.dumps(content).encode()}, np.random.default_rng(0))
        plain = DemoMapper()(
            "k", {"png": b"", "json": json.dumps(content).encode()}, np.random.default_rng(0)
        )
        assert {**plain, "labels": fields["labels"]} == fields  # the others stay as they are
        return int(fields["labels"])

    star, ring = {"color": "red", "shape": "star"}, {"color": "blue", "shape": "ring"}
    assert label({"digit": 3}) == DEMO_CLASSES.index("three") == 3
    assert DEMO_CLASSES[label({"objects": [star]})] == "red star"
    assert label({"objects": [star, ring]}) == -1
    for broken in ({}, {"digit": 12}, {"objects": [{"color": "red"}]}):
        with pytest.raises(BadSample, match="neither digit nor objects say its class"):
            label(broken)
    assert "labels=True" in repr(mapper) and "labels" not in repr(DemoMapper())
