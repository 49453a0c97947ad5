"""Draws and cuts by class."""

import numpy as np
import pytest
import torch

from hypvl.errors import DataError
from hypvl.evaluation.labelled_images import (
    as_targets,
    check_labels,
    classes_of,
    cut_validation,
    few_shot,
    is_multi_label,
)

LABELS = [0] * 10 + [1] * 4 + [2]
SEVERAL = [(0,), (0, 1), (1,), (2,), (0, 2), (), (1, 2)]


def test_few_shot_takes_as_many_of_each_class_as_there_are() -> None:
    chosen = few_shot(LABELS, shots=3, seed=0)
    assert [LABELS[i] for i in chosen] == [0, 0, 0, 1, 1, 1, 2] and chosen == sorted(set(chosen))
    assert few_shot(LABELS, shots=3, seed=0) == chosen
    assert len({tuple(few_shot(LABELS, shots=3, seed=s)) for s in range(5)}) > 1


def test_few_shots_of_more_are_among_those_of_fewer() -> None:
    assert set(few_shot(LABELS, shots=2, seed=7)) <= set(few_shot(LABELS, shots=5, seed=7))


def test_few_shot_with_several_labels_an_item() -> None:
    for seed in range(5):
        chosen = few_shot(SEVERAL, shots=2, seed=seed)
        for c in range(3):
            assert sum(c in SEVERAL[i] for i in chosen) >= 2
        assert 5 not in chosen  # an item without labels serves no class


def test_validation_has_its_share_of_each_class() -> None:
    train, validation = cut_validation(range(15), LABELS, fraction=0.2, seed=0)
    assert sorted(train + validation) == list(range(15))
    assert [LABELS[i] for i in validation] == [0, 0, 1]
    assert LABELS[train[-1]] == 2  # the only one of its class is learnt from
    assert cut_validation(range(15), LABELS, fraction=0.2, seed=1)[1] != validation
    half = cut_validation([0, 1, 10, 11], LABELS, fraction=0.99, seed=0)
    assert [len(part) for part in half] == [2, 2]  # never all of a class


def test_no_validation_can_be_cut_from_one_item_each() -> None:
    with pytest.raises(DataError, match="its 2 images in 2 classes leave none"):
        cut_validation([0, 14], LABELS, fraction=0.2, seed=0)
    with pytest.raises(ValueError, match="fraction: got 1"):
        cut_validation([0, 1], LABELS, fraction=1.0, seed=0)


def test_targets() -> None:
    assert not is_multi_label(LABELS) and is_multi_label(SEVERAL)
    assert not is_multi_label(np.arange(3)) and classes_of(np.int64(2)) == (2,)  # type: ignore[arg-type]
    assert as_targets([2, 0], num_classes=3, multi_label=False).tolist() == [2, 0]
    table = as_targets([*SEVERAL[:2], ()], num_classes=3, multi_label=True)
    assert torch.equal(table, torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 0]]))


def test_wrong_labels_and_shots() -> None:
    with pytest.raises(DataError, match=r"b\.png: its label is 3; expected 0 … 2"):
        check_labels([0, (1, 3)], ["a.png", "b.png"], num_classes=3)
    with pytest.raises(ValueError, match="shots: got 0"):
        few_shot(LABELS, shots=0, seed=0)
