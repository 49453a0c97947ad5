"""SNLI-VE's lines."""

from pathlib import Path

import pytest

from hypvl.datasets.text.snli_ve import LABELS, snli_ve
from hypvl.errors import DataError, MissingDataError
from tests.evaluation.fakes import GREEN
from tests.evaluation.miniatures import snli_ve as miniature


def test_rows_and_images(tmp_path: Path) -> None:
    miniature.make(tmp_path)
    folder = tmp_path / "flickr30k" / "flickr30k_images"
    data = snli_ve(tmp_path / "snli_ve", split="test", images=folder)
    assert (data.premises[0], data.hypotheses[0]) == ("a red thing 0", "It is red.")
    assert [LABELS[label] for label in data.labels[:3]] == ["entailment", "contradiction", "neutral"]
    assert data.keys == ["1234", "5678", "9012"] and data.image == [0] * 3 + [1] * 3 + [2] * 3
    assert data.images is not None
    assert data.images[1].float().mean(dim=(1, 2)).round().tolist() == list(GREEN)
    assert data.notes == {"rows_without_agreement": 1}
    train = snli_ve(tmp_path / "snli_ve", split="train")
    assert train.images is None and len(train.labels) == 36


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"snli_ve_dev\.jsonl: is not there"):
        snli_ve(tmp_path, split="dev")
    miniature.make(tmp_path)
    with pytest.raises(MissingDataError, match="none of its 3 images is there"):
        snli_ve(tmp_path / "snli_ve", split="test", images=tmp_path / "elsewhere")
    file = tmp_path / "snli_ve" / "snli_ve_dev.jsonl"
    file.write_text('{"gold_label": "maybe", "sentence1": "a", "sentence2": "b"}\n')
    with pytest.raises(DataError, match="line 1: gold_label is 'maybe'"):
        snli_ve(tmp_path / "snli_ve", split="dev")
    file.write_text('{"gold_label": "neutral", "sentence1": "a"}\n')
    with pytest.raises(DataError, match="line 1: has no text 'sentence2'"):
        snli_ve(tmp_path / "snli_ve", split="dev")
    file.write_text('{"gold_label": "-", "sentence1": "a", "sentence2": "b"}\n')
    with pytest.raises(DataError, match="has no rows with a label"):
        snli_ve(tmp_path / "snli_ve", split="dev")
