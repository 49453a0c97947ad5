"""`hypvl docs` prints the documentation, also where there is no checkout."""

from pathlib import Path

import pytest

from hypvl.cli import docs
from hypvl.cli.common import run_main
from tests.test_house import ROOT


def test_every_page_is_listed_with_its_heading(capsys: pytest.CaptureFixture[str]) -> None:
    assert docs.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["training", "Training"] for line in lines)
    assert any(line.split() == ["datasets", "Data", "sets"] for line in lines)
    listed = {
        page.relative_to(ROOT / "docs").with_suffix("").as_posix() for page in (ROOT / "docs").rglob("*.md")
    }
    assert set(docs.pages()) == listed | {"datasets"}


@pytest.mark.parametrize(
    ("typed", "file"),
    [
        ("data", "docs/data.md"),
        ("docs/data.md#tar-shards", "docs/data.md"),
        ("composition", "docs/benchmarks/composition.md"),
        ("datasets", "datasets/README.md"),
        ("datasets/README.md", "datasets/README.md"),
    ],
)
def test_a_page_is_printed_by_its_name_or_path(
    typed: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert docs.main([typed]) == 0
    assert capsys.readouterr().out == (ROOT / file).read_text(encoding="utf-8")


def test_a_mistyped_page_names_the_closest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(docs.main, ["trainin"]) == 2
    assert "no page 'trainin'; the closest is training; hypvl docs lists all" in capsys.readouterr().err


def test_an_installed_package_has_its_own_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docs, "_PACKAGE_FOLDER", tmp_path / "hypvl")
    assert run_main(docs.main, []) == 1
    for name in ("data.md", "benchmarks/text.md", "datasets/README.md"):
        file = tmp_path / "hypvl/docs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"# {name}\n")
    assert list(docs.pages()) == ["benchmarks/text", "data", "datasets"]
