from pathlib import Path
from typing import Any

import numpy as np
import torch

from hypvl.training.skipped_batch import sample_names, take_first, write_dump


def batch() -> dict[str, Any]:
    """Three samples, of which the second has no box and the third two."""
    return {
        "key": ["a", "b", "c"],
        "position": torch.tensor([6, 7, 8]),
        "image": torch.arange(3).view(3, 1).expand(3, 4).to(torch.uint8),
        "text": torch.tensor([[1], [2], [3]]),
        "text_lengths": np.array([1, 1, 1]),
        "negative_text": torch.arange(6)[:, None],
        "box_owner": np.array([0, 2, 2]),
        "box_text": torch.tensor([[10], [30], [31]]),
        "box_text_lengths": np.array([1, 5, 6]),
        "box_parent": np.array([-1, -1, 1]),
        "crops": [torch.zeros(3, 2), torch.ones(3, 5)],
        "bad": [("z", "why")],
        "scalar": torch.tensor(1.0),
    }


def test_samples_are_taken_with_all_their_rows() -> None:
    kept = take_first(batch(), [2], max_bytes=300)
    assert (kept["row"], kept["key"], kept["left_out"]) == ([2, 0], ["c", "a"], ["bad", "scalar"])
    assert kept["image"].tolist() == [[2] * 4, [0] * 4] and kept["position"].tolist() == [8, 6]
    assert kept["text_lengths"].tolist() == [1, 1] and kept["negative_text"][:, 0].tolist() == [4, 5, 0, 1]
    assert kept["box_owner"].tolist() == [0, 0, 1]
    assert kept["box_text"][:, 0].tolist() == [30, 31, 10] and kept["box_text_lengths"].tolist() == [5, 6, 1]
    assert kept["box_parent"].tolist() == [-1, 0, -1]
    assert [crop.shape for crop in kept["crops"]] == [(2, 2), (2, 5)]


def test_the_file_is_bounded_and_plain(tmp_path: Path) -> None:
    write_dump(
        tmp_path / "new" / "some.pt", [(batch(), [1]), (batch(), [])], about={"rank": 3}, max_bytes=210
    )
    dump = torch.load(tmp_path / "new" / "some.pt", weights_only=True)
    assert dump["rank"] == 3 and [part["row"] for part in dump["batches"]] == [[1, 0], [0, 1, 2]]
    assert "image" in dump["batches"][0] and "image" not in dump["batches"][1]  # no room: keys and positions
    assert dump["batches"][1]["key"] == ["a", "b", "c"]


def test_samples_without_keys_are_named_by_their_row() -> None:
    assert sample_names({"text": torch.zeros(2, 3)}) == ["row 0", "row 1"]
