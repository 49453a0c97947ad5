"""CHANGELOG.md is in the form of Keep a Changelog, and every version has its section."""

import re
from pathlib import Path

import yaml

import hypvl

ROOT = Path(__file__).resolve().parents[1]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
SECTIONS = re.findall(r"^## (.*)$", CHANGELOG, re.M)
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_version_has_a_section_below_unreleased() -> None:
    assert SECTIONS[0] == "[Unreleased]"
    versions = [re.match(r"\[(\d+\.\d+\.\d+)\]", section) for section in SECTIONS[1:]]
    assert all(versions), SECTIONS
    numbers = [match[1] for match in versions if match]
    assert numbers[0] == hypvl.__version__, "the newest section is that of hypvl.__version__"
    assert numbers == sorted(numbers, key=lambda text: [int(part) for part in text.split(".")], reverse=True)


def test_sections_have_the_headings_of_keep_a_changelog() -> None:
    headings = re.findall(r"^### (.*)$", CHANGELOG, re.M)
    assert headings and set(headings) <= KINDS
    for section in re.split(r"^## ", CHANGELOG, flags=re.M)[1:]:
        within = re.findall(r"^### (.*)$", section, re.M)
        assert len(within) == len(set(within)), section.splitlines()[0]


def test_the_citation_names_the_version() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == hypvl.__version__
