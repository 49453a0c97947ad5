"""Judged captions, from miniatures of both published forms."""

import json
from pathlib import Path

import pytest

from hypvl.datasets.candidate_captions import captions_of, flickr8k
from hypvl.errors import DataError, MissingDataError
from tests.evaluation.fakes import BLUE, RED, image as pil_image
from tests.evaluation.miniatures import flickr8k as miniature
from tests.evaluation.miniatures.retrieval import write


def json_form(root: Path) -> Path:
    miniature.make(root)
    return root / "flickr8k"


def text_form(root: Path) -> Path:
    miniature.make_text(root)
    return root / "flickr8k"


FORMS = pytest.mark.parametrize("form", [json_form, text_form])


@FORMS
def test_experts_give_three_rows(form: type, tmp_path: Path) -> None:
    data = flickr8k(form(tmp_path), ratings="expert")
    assert data.ratings is not None and data.references is not None
    # Six captions, one of which is a reference of its image.
    assert len(data.captions) == 15 and data.ratings[:6] == [2, 2, 3, 1, 1, 1]
    assert data.captions[0] == data.captions[2] == "A yellow dog ."
    assert data.image == [0] * 6 + [1] * 3 + [2] * 3 + [3] * 3
    assert data.keys[0] == "1056338697_4f7d7ce270.jpg"
    assert data.references[6] == ("The green grass .", "A green meadow .")  # single blanks
    assert data.images[2].float().mean(dim=(1, 2)).round().tolist() == list(BLUE)
    file = "flickr8k.json" if form is json_form else "ExpertAnnotations.txt"
    assert data.notes == {"source": file, "ratings_that_are_nan": 0, "captions_that_are_references": 3}


@FORMS
def test_of_the_crowd_a_caption_is_no_reference_of_itself(form: type, tmp_path: Path) -> None:
    data = flickr8k(form(tmp_path), ratings="crowdflower")
    assert data.ratings == [0.5, 0.0, 1.0, 0.25, 0.0, 0.75]
    assert data.captions[2] == "A green meadow ." and data.references is not None
    assert data.references[2] == ("The green grass .",) and len(data.references[3]) == 2


def test_both_layouts_give_the_same_captions(tmp_path: Path) -> None:
    for ratings in ("expert", "crowdflower"):
        one, other = (flickr8k(f(tmp_path / f.__name__), ratings=ratings) for f in (json_form, text_form))  # type: ignore[arg-type]
        assert (one.captions, one.references, one.ratings, one.image) == (
            other.captions,
            other.references,
            other.ratings,
            other.image,
        )


def test_ratings_that_are_nan_are_left_out(tmp_path: Path) -> None:
    path = json_form(tmp_path) / "crowdflower_flickr8k.json"
    content = json.loads(path.read_text())
    content["1056338697"]["human_judgement"][0]["rating"] = float("nan")
    write(path, content)
    data = flickr8k(path.parent, ratings="crowdflower")
    assert data.ratings == [0.0, 1.0, 0.25, 0.0, 0.75] and data.notes["ratings_that_are_nan"] == 1


def test_an_image_needs_another_reference(tmp_path: Path) -> None:
    path = json_form(tmp_path) / "crowdflower_flickr8k.json"
    content = json.loads(path.read_text())
    content["106490881"]["ground_truth"] = ["A  green meadow ."] * 2
    write(path, content)
    with pytest.raises(DataError, match=r"106490881_5a2dd9b7bd\.jpg has no references beside the caption"):
        flickr8k(path.parent, ratings="crowdflower")


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"neither flickr8k\.json .* nor ExpertAnnotations\.txt with"):
        flickr8k(tmp_path, ratings="expert")
    folder = json_form(tmp_path)
    (folder / "images").rename(folder / "gone")
    with pytest.raises(MissingDataError, match=r"images: is not there .*put the images of Flickr8k there"):
        flickr8k(folder, ratings="expert")
    (folder / "images").mkdir()
    with pytest.raises(MissingDataError, match=r"none of its 4 images is there, such as .*1056338697"):
        flickr8k(folder, ratings="expert")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("flickr8k.json", {"1": {}}, "lacks .image_path.; expected an object of images"),
        ("flickr8k.json", [], "holds list; expected an object of images"),
        ("flickr8k.json", {}, "has no judgement that can be used"),
        ("ExpertAnnotations.txt", "a.jpg\tb.jpg#0\t1\n", "line 1: has 3 columns; expected 5"),
        (
            "ExpertAnnotations.txt",
            "a.jpg\tb.jpg#0\t1\t1\t1\n",
            "line 1: a.jpg or b.jpg#0 is not in Flickr8k.token.txt",
        ),
        (
            "ExpertAnnotations.txt",
            "1056338697_4f7d7ce270.jpg\t106490881_5a2dd9b7bd.jpg#0\t1\tx\t1\n",
            "line 1: cannot be used .ValueError: could not convert string to float: .x.\\); expected ratings",
        ),
    ],
)
def test_files_of_another_layout_are_refused(
    name: str, content: object, message: str, tmp_path: Path
) -> None:
    folder = json_form(tmp_path) if name.endswith("json") else text_form(tmp_path)
    write(folder / name, content)
    with pytest.raises(DataError, match=message):
        flickr8k(folder, ratings="expert")


def test_captions_of_images(tmp_path: Path) -> None:
    pil_image(tmp_path / "images" / "image1.jpg", RED)
    pil_image(tmp_path / "images" / "image2.png", BLUE)
    candidates = write(tmp_path / "candidates.json", {"image2": "a  blue\nthing", "image1.jpg": "red"})
    data = captions_of(candidates, images=tmp_path / "images")
    assert data.keys == ["image2.png", "image1.jpg"] and data.captions == ["a blue thing", "red"]
    assert data.references is None and data.ratings is None
    references = write(tmp_path / "references.json", {"image2": ["blue", "a sea"]})
    with pytest.raises(DataError, match=r"has no list of references for 'image1\.jpg'"):
        captions_of(candidates, images=tmp_path / "images", references=references)
    write(candidates, {"image2": "x"})
    data = captions_of(candidates, images=tmp_path / "images", references=references)
    assert data.references == [("blue", "a sea")]
    pil_image(tmp_path / "images" / "image2.jpg", RED)
    with pytest.raises(DataError, match=r"has image2\.jpg and image2\.png for 'image2'; expected one image"):
        captions_of(candidates, images=tmp_path / "images")
    for content in ([], {}, {"image2": ["x"]}):
        with pytest.raises(DataError, match="expected an object of image names"):
            captions_of(write(candidates, content), images=tmp_path / "images")
    write(candidates, {"image3": "x"})
    with pytest.raises(MissingDataError, match=r"its only image is not there: .*image3"):
        captions_of(candidates, images=tmp_path / "images")


def test_a_key_of_two_captions_is_refused(tmp_path: Path) -> None:
    folder = text_form(tmp_path)
    path = next(path for path in folder.iterdir() if "token" in path.name)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[0]]))
    assert len(flickr8k(folder, ratings="expert").captions) > 0  # the same line twice says nothing else
    path.write_text("\n".join([*lines, lines[0] + " elsewhere"]))
    with pytest.raises(DataError, match=rf"line {len(lines) + 1}: has .* twice, with another caption"):
        flickr8k(folder, ratings="expert")
