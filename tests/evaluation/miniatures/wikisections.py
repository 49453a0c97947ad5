"""Triplets of Wikipedia sections in small; `root` stands for ./datasets. Fills roots.wikisections."""

import zipfile
from pathlib import Path

HEADER = "Sentence1,Sentence2,Sentence3,Article Title,Article Link\n"
ROWS = (
    '"A red house, with a door.",The red bricks.,The green fields.,House,link\n'
    "The blue sea.,A yellow beach.,Some blue water.,Sea,link\n"
    '"The ""green"" party.",Still green.,It is green.,Party,link\n'
    "A yellow fruit.,So yellow.,So blue.,Fruit,link\n"
)


def make(root: Path) -> None:
    """wikipedia-sections-triplets.zip."""
    folder = root / "wikisections"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "wikipedia-sections-triplets.zip", "w") as archive:
        for split in ("train", "validation", "test"):
            archive.writestr(f"{split}.csv", HEADER + ROWS)
