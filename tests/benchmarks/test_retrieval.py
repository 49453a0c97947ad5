"""The retrieval benchmark at a tiny size: both sides find the same, and what is measured apart."""

import json

import pytest
import torch

from benchmarks import retrieval


@pytest.mark.slow
def test_both_sides_find_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    retrieval.main(["--images", "6", "--gallery", "30", "--repeats", "1"])
    result = json.loads(capsys.readouterr().out)
    assert result["ranking_equal"] and result["queries"] == 150 and result["captions"] == 30
    assert result["recall_difference"] <= 100 / 6 + 1e-9  # PIL resizes a little differently: one query
    assert result["throughput_ratio"] > 0 and result["ranking_ratio"] > 0


def test_ranks_of_both_sides_by_hand() -> None:
    """Two images on axes, texts beside them; the last text leans towards the wrong one."""
    images = torch.eye(2)
    texts = torch.tensor([[1.0, 0.1], [0.1, 1.0], [1.0, 0.2]])
    owners = torch.tensor([0, 1, 1])
    for rank in (retrieval.rank_plainly, retrieval.rank_in_blocks):
        result = rank(retrieval.Given(), texts, images, owners)
        assert result["text_to_image_recall@1"] == pytest.approx(200 / 3)
        assert result["image_to_text_recall@1"] == 100.0 and result["text_to_image_recall@5"] == 100.0


def test_captions_differ() -> None:
    assert len(set(retrieval.captions(500))) == 500


@pytest.mark.slow
def test_memory_of_many_scores_is_a_fraction_of_them() -> None:
    result = retrieval.large(8_000)
    assert result["extra_memory_mib"] < 120 < 8_000**2 * 4 / 2**20
    assert result["sampled_rows_right"] == 1.0
