"""What a user hands to a command."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from hypvl.datasets.images import Images
from hypvl.datasets.user_inputs import image_paths, tar_texts, text_file
from hypvl.errors import DataError, MissingDataError
from tests.evaluation.fakes import BLUE, RED, image


def tar(path: Path, **images: tuple[int, int, int] | None) -> Path:
    """A TAR with an image (None: a broken one), a ``txt`` and a ``json`` for each key."""
    with tarfile.open(path, "w") as file:
        for key, color in images.items():
            data = io.BytesIO()
            if color is not None:
                Image.new("RGB", (9, 7), color).save(data, format="PNG")
            caption = f" caption of {key}\n"
            members = {
                "png": data.getvalue(),
                "txt": caption.encode(),
                "json": json.dumps({"caption": caption}).encode(),
            }
            for extension, content in members.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return path


def test_a_folder_of_images(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/1.png", "a.png"):
        image(tmp_path / name, RED)
    (tmp_path / "b" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_text("")
    assert [path.relative_to(tmp_path).as_posix() for path in image_paths(tmp_path)] == [
        "a.png", "b/1.png", "b/2.PNG",
    ]  # fmt: skip
    with pytest.raises(MissingDataError, match="is not a folder; expected one with images"):
        image_paths(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingDataError, match="holds no images"):
        image_paths(tmp_path / "empty")


def test_images_and_texts_of_a_tar(tmp_path: Path) -> None:
    path = tar(tmp_path / "0.tar", a=RED, b=BLUE)
    images = Images.from_tars([str(path)])
    assert len(images) == 2 and images.ids == [f"{path}::a", f"{path}::b"]
    assert images[1][:, 0, 0].tolist() == [0, 0, 255]
    for member in ("txt", "json.caption"):
        texts = tar_texts(str(path), member=member)
        assert (texts.texts, texts.ids) == (["caption of a", "caption of b"], images.ids)
    with pytest.raises(DataError, match=r"0\.tar/a: has no text at json\.title"):
        tar_texts(str(path), member="json.title")
    with pytest.raises(DataError, match=r"has no \.cls member"):
        tar_texts(str(path), member="cls")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.jsonl", '{"caption": "one", "n": 5}\n\n{"caption": " two ", "n": 6}\n'),
        ("x.csv", 'n,caption\n5,"one"\n6, two \n7,\n'),
        ("x.tsv", "caption\tn\none\t5\ntwo\t6\n"),
    ],
)
def test_files_of_texts(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    result = text_file(tmp_path / name, id_key="n")
    assert (result.texts, result.ids) == (["one", "two"], ["5", "6"])


def test_lines_of_texts_are_called_by_their_number(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("one\n\n  two\n")
    result = text_file(tmp_path / "x.txt")
    assert (result.texts, result.ids) == (["one", "two"], ["x.txt:1", "x.txt:3"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "x.jsonl",
            '{"caption": "one"}\n{"title": "two"}',
            "line 2: has no text under 'caption'; its keys are title",
        ),
        ("x.jsonl", '{"caption": ["one"]}', "line 1: has no text under 'caption'"),
        ("x.jsonl", "[1]", "none of its first entries is a JSON object"),
        ("x.jsonl", "{", "none of its first lines is a JSON object"),
        ("x.jsonl", '{"caption": "one"}\n{', "line 2: cannot be used: broken JSON"),
        (
            "x.csv",
            "n,caption\n1,a dog, running\n",
            r"line 2: cannot be used: another number .*\(3, expected 2",
        ),
        ("x.csv", "title\none\n", "line 2: has no text under 'caption'; its keys are title"),
        ("x.txt", "\n \n", "holds no texts"),
        (
            "x.doc",
            "",
            r"ends in '\.doc'; expected one of \.csv, \.json, \.jsonl, \.jsonlines, \.ndjson, \.tsv, \.txt",
        ),
    ],
)
def test_files_of_another_layout_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        text_file(tmp_path / name)
