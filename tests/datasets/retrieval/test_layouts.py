"""Readers of caption files, on miniatures of the published layouts."""

import json
from pathlib import Path

import pytest

from hypvl.datasets.retrieval.captioned import CaptionedImages
from hypvl.datasets.retrieval.coco import coco, coco_format, coco_karpathy, flickr30k, gold, nocaps
from hypvl.datasets.retrieval.long_captions import caption_folder, share_gpt4v
from hypvl.datasets.retrieval.positives import caption_positives
from hypvl.datasets.retrieval.table import table
from hypvl.errors import DataError, MissingDataError
from tests.evaluation.fakes import BLUE, GREEN, RED, broken, image
from tests.evaluation.miniatures import i0t_retrieval, retrieval
from tests.evaluation.miniatures.retrieval import write


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("datasets")
    retrieval.make(folder)
    i0t_retrieval.make(folder)
    return folder


def color(data: CaptionedImages, position: int) -> list[float]:
    return data.images[position].float().mean(dim=(1, 2)).round().tolist()


def test_coco_knows_the_ids_of_images_and_captions(root: Path) -> None:
    data = coco(root / "coco")
    assert data.image_ids == ["391895", "522418", "184613", "318219", "554625"]
    assert data.caption_ids is not None and data.caption_ids[:3] == ["770337", "771687", "681330"]
    assert data.captions[2] == "A green field."
    first = coco(root / "coco", captions_per_image=1)
    assert first.caption_ids == ["770337", "681330", "474921", "554625", "103610"]


def test_repeated_or_missing_ids_give_no_ids(tmp_path: Path) -> None:
    image(tmp_path / "a.png", RED)
    for annotation in ({"image_id": 1, "caption": "x"}, {"image_id": 1, "caption": "x", "id": 3}):
        content = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [annotation] * 2}
        data = coco_format(write(tmp_path / "set.json", content), images=tmp_path)
        assert data.caption_ids is None and data.image_ids == ["1"] and data.captions == ["x", "x"]


def test_coco_karpathy(root: Path) -> None:
    data = coco_karpathy(root / "coco", captions_per_image=1)
    assert data.keys[0] == "val2014/COCO_val2014_000000391895.jpg" and len(data.keys) == 5
    assert data.captions[:2] == ["A red door.", "A green field."] and data.caption_image == [0, 1, 2, 3, 4]
    assert data.image_ids is not None and data.image_ids[1] == "522418"
    assert data.caption_ids is not None and data.caption_ids[1] == "681330"
    assert color(data, 1) == list(GREEN)
    with pytest.raises(DataError, match=r"no image with split 'exam'; expected one of restval, test\."):
        coco_karpathy(root / "coco", split="exam")
    with pytest.raises(MissingDataError, match=r"its only image is not there: .*000000000001\.jpg"):
        coco_karpathy(root / "coco", split="restval")


def test_flickr30k_has_no_ids_of_coco(root: Path) -> None:
    data = flickr30k(root / "flickr30k")
    assert len(data.keys) == 4 and len(data.captions) == 8
    assert data.image_ids is None and data.caption_ids is not None


def test_nocaps(root: Path) -> None:
    file = root / "nocaps" / "nocaps_val_4500_captions.json"
    data = nocaps(file, images=root / "nocaps" / "images")
    assert data.keys == [f"{i:016x}.jpg" for i in range(3)] and len(data.captions) == 6
    assert color(data, 2) == list(BLUE)
    near = nocaps(file, images=root / "nocaps" / "images" / "val", domain="near-domain")
    assert near.captions == ["A green field.", "green grass"] and near.caption_image == [0, 0]
    assert nocaps(file, images=root / "nocaps" / "images", max_characters=5).captions[0] == "A red"
    with pytest.raises(
        ValueError, match="domain: got 'far'; expected 'in-domain', 'near-domain', 'out-domain' or"
    ):
        nocaps(file, images=root / "nocaps" / "images", domain="far")  # type: ignore[arg-type]


def test_gold_files_name_images_by_their_file_name(root: Path) -> None:
    data = gold(root / "i0t_captions" / "COCO_GOLD.json", images=root / "i0t" / "coco" / "val2014")
    assert data.keys[0] == "COCO_val2014_000000391895.jpg" and len(data.captions) == 10
    short = gold(
        root / "i0t_captions" / "Flickr_GOLD.json",
        images=root / "i0t" / "flickr30k-images",
        captions_per_image=1,
        max_characters=4,
    )
    assert short.captions == ["A re", "A gr", "The ", "A ye", "a re"]
    file = root / "i0t_captions" / "NoCaps_GOLD.json"
    assert len(nocaps(file, images=root / "i0t" / "nocaps" / "images", captions_per_image=1).captions) == 3


def test_json_list(root: Path, tmp_path: Path) -> None:
    # The form of coco_karpathy_test.json; one image stands twice.
    name = "val2014/COCO_val2014_000000391895.jpg"
    entries = [{"image": name, "caption": ["one", " two"]}, {"image": name, "caption": "three"}]
    data = table(write(tmp_path / "list.json", entries), images_root=root / "coco")
    assert data.keys == [name] and data.captions == ["one", "two", "three"]
    with pytest.raises(DataError, match="none of its first lines is a JSON object"):
        table(write(tmp_path / "list.json", {}), images_root=root / "coco")
    with pytest.raises(DataError, match=r'list\.json, entry 2: expected {"image": path, "caption"'):
        table(write(tmp_path / "list.json", [*entries[:1], {"image": 3}]), images_root=root / "coco")
    with pytest.raises(MissingDataError, match=r"nowhere: is not there .*put the images of list\.json there"):
        table(tmp_path / "list.json", images_root=tmp_path / "nowhere")


def test_tables_merge_lines_of_one_image(tmp_path: Path) -> None:
    image(tmp_path / "a.png", RED)
    image(tmp_path / "b.png", BLUE)
    text = 'title\tfilepath\nred\ta.png\n"a ""blue""\nthing"\tb.png\nrot\ta.png\n'
    data = table(write(tmp_path / "set.tsv", text))
    assert data.keys == ["a.png", "b.png"] and data.captions == ["red", "rot", 'a "blue"\nthing']
    assert color(data, 1) == list(BLUE)
    commas = write(tmp_path / "set.csv", "path,text\na.png,red\n")
    assert table(commas, separator=",", image_column="path", caption_column="text").captions == ["red"]
    with pytest.raises(
        DataError, match=r"has no column 'filepath' or .*; it has path, text; set image_column"
    ):
        table(commas)
    with pytest.raises(
        DataError, match=r"line 3: cannot be used: another number of fields than the header \(1, expected 2"
    ):
        table(write(tmp_path / "set.tsv", "title\tfilepath\nred\ta.png\nlost\n"))


def test_rows_are_selected_by_their_values(root: Path) -> None:
    data = table(
        root / "docci" / "docci_descriptions.jsonlines",
        images_root=root / "docci" / "images",
        image_column="image_file",
        caption_column="description",
        where={"split": "test"},
    )
    assert len(data.keys) == 4 and data.keys[0] == "test_00001.jpg" and color(data, 0) == list(GREEN)


def test_share_gpt4v(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / "i0t" / "sharegpt4v"
    monkeypatch.setattr("hypvl.io.json_text._WINDOW", 100)  # an entry is in several windows
    data = share_gpt4v(folder, entries=4)
    assert data.keys[1] == "coco/train2017/000000000001.jpg" and len(data.captions) == 4
    assert (
        data.captions[0].startswith("A red door. Something red on a wall. It is")
        and "\n" not in data.captions[0]
    )
    assert share_gpt4v(folder, caption="short").captions[:2] == ["A red door", "A green field"]
    assert share_gpt4v(folder, subset="sam").keys == ["sam/images/000000000004.jpg"]
    with pytest.raises(DataError, match=r"none of its|first 4 entries has 'sam' in its image"):
        share_gpt4v(folder, entries=4, subset="sam")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", r"is not a JSON list, it begins with '\{\}'"),
        ('[{"image": "a.jpg"', "is not a whole JSON list"),
        ('[{"image": "a.jpg", "conversations": [{}]}]', "entry 0: cannot be used .IndexError: list index out of range"),
        ('[{"conversations": []}]', "entry 0: lacks 'image'"),
        ("[]", "none of its first|check subset"),
    ],
)  # fmt: skip
def test_share_gpt4v_that_cannot_be_used(text: str, message: str, tmp_path: Path) -> None:
    write(tmp_path / "share.json", text)
    with pytest.raises(DataError, match=message):
        share_gpt4v(tmp_path, annotations="share.json")


def test_folders_of_texts(root: Path, tmp_path: Path) -> None:
    data = caption_folder(root / "Urban1k")
    assert data.keys == [f"{i}.jpg" for i in range(1, 6)]
    assert data.captions[0].startswith("A red door. Something red on a wall. The image shows")
    image(tmp_path / "image" / "10.PNG", RED)
    write(tmp_path / "caption" / "10.txt", "ten")
    write(tmp_path / "caption" / "9.txt", "nine")
    data = caption_folder(tmp_path)
    assert data.captions == ["nine", "ten"] and color(data, 1) == list(RED)
    with pytest.raises(DataError, match=r"9\.jpg: cannot be read"):
        data.images[0]
    image(tmp_path / "image" / "10.jpg", BLUE)  # which of the two is it?
    with pytest.raises(DataError, match=r"image: has 10\.PNG and 10\.jpg for '10'; expected one image"):
        caption_folder(tmp_path)
    (tmp_path / "image" / "10.jpg").rename(tmp_path / "image" / "._10.jpg")
    broken(tmp_path / "caption" / "._9.txt")  # what macOS leaves behind
    assert caption_folder(tmp_path).captions == ["nine", "ten"]
    broken(tmp_path / "caption" / "11.txt")
    with pytest.raises(DataError, match=r"11\.txt: cannot be read as UTF-8"):
        caption_folder(tmp_path)


def test_positives(root: Path, tmp_path: Path) -> None:
    result = caption_positives(root / "eccv_caption")
    assert result.image_to_text["184613"] == {"474921", "479322"} and len(result.image_to_text["391895"]) == 5
    assert result.text_to_image["770337"] == {"391895", "554625"}
    assert result.source == "eccv_caption/eccv"
    write(tmp_path / "cxc_caption_to_image.json", "{}")
    for content, message in (({"1": []}, r"has \[\] for '1'"), ([], "names no queries")):
        write(tmp_path / "cxc_image_to_caption.json", json.dumps(content))
        with pytest.raises(DataError, match=message):
            caption_positives(tmp_path, name="cxc")


def test_missing_files_are_named_with_their_source(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="eccv_caption/data of the package eccv_caption"):
        caption_positives(tmp_path)
    with pytest.raises(MissingDataError, match="Lin-Chen/ShareGPT4V"):
        share_gpt4v(tmp_path)
    with pytest.raises(MissingDataError, match=r"caption: is not there .*put one \.txt an image there"):
        caption_folder(tmp_path)
    (tmp_path / "caption").mkdir()
    (tmp_path / "image").mkdir()
    with pytest.raises(MissingDataError, match=r"holds no \.txt files"):
        caption_folder(tmp_path)
    write(tmp_path / "caption" / "1.txt", "one")
    with pytest.raises(MissingDataError, match=r"its only image is not there: .*image/1\.jpg"):
        caption_folder(tmp_path)
