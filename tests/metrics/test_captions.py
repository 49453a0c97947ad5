"""Caption scores by hand."""

import math

import pytest
import torch

from hypvl.metrics.captions import (
    CLIP_SCORE_WEIGHT,
    I0T_SCORE_WEIGHT,
    PAC_SCORE_WEIGHT,
    caption_score,
    paired_cosine,
    reference_augmented,
    reference_cosine,
    standardized,
)

IMAGES = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
CAPTIONS = torch.tensor([[1.0, 0.0], [0.0, -1.0], [0.0, 5.0]])


def test_scores_by_hand() -> None:
    assert paired_cosine(IMAGES, CAPTIONS).tolist() == pytest.approx([1.0, -1.0, math.sqrt(0.5)])
    assert caption_score(IMAGES, CAPTIONS).tolist() == pytest.approx([2.5, 0.0, 2.5 * math.sqrt(0.5)])
    assert caption_score(IMAGES, CAPTIONS, weight=PAC_SCORE_WEIGHT)[0] == 2.0
    assert (CLIP_SCORE_WEIGHT, PAC_SCORE_WEIGHT, I0T_SCORE_WEIGHT) == (2.5, 2.0, 2.0)


def test_scores_do_not_depend_on_lengths() -> None:
    scores = caption_score(IMAGES * torch.tensor([[7.0], [0.1], [3.0]]), CAPTIONS * 5)
    torch.testing.assert_close(scores, caption_score(IMAGES, CAPTIONS))


def test_references_by_hand() -> None:
    references = [torch.tensor([[0.0, 1.0], [1.0, 1.0]]), torch.tensor([[0.0, 1.0]]), IMAGES]
    result = reference_cosine(CAPTIONS, references)
    assert result.tolist() == pytest.approx([math.sqrt(0.5), -1.0, 1.0])


def test_harmonic_mean_by_hand() -> None:
    score, reference = torch.tensor([1.0, 2.0, 0.0, 1.0]), torch.tensor([1.0, 0.5, 0.0, -0.9])
    assert reference_augmented(score, reference).tolist() == pytest.approx([1.0, 0.8, 0.0, 0.0])
    as_is = reference_augmented(score, reference, negative="as_is")
    assert as_is[-1].item() == pytest.approx(-18.0, rel=1e-5)
    assert bool((as_is[:3] == reference_augmented(score, reference)[:3]).all())


def test_the_reference_score_lies_between_its_parts() -> None:
    generator = torch.Generator().manual_seed(0)
    score, reference = torch.rand(50, generator=generator), torch.rand(50, generator=generator)
    both = reference_augmented(score, reference)
    assert bool((both >= torch.minimum(score, reference) - 1e-9).all())
    assert bool((both <= torch.maximum(score, reference) + 1e-9).all())


def test_standardization_by_hand() -> None:
    # Unit rows (1, 0), (0, 1): mean (.5, .5), what is left (.5, -.5) and its opposite.
    result = standardized(torch.tensor([[3.0, 0.0], [0.0, 0.1]]))
    half = math.sqrt(0.5)
    torch.testing.assert_close(result, torch.tensor([[half, -half], [-half, half]], dtype=torch.float64))
    other = standardized(torch.tensor([[3.0, 0.0]]), torch.tensor([0.0, -1.0]))
    assert other.tolist()[0] == pytest.approx([half, half])


def test_half_precision_is_scored_in_fp64() -> None:
    assert caption_score(IMAGES.half(), CAPTIONS.half()).dtype == torch.float64


def test_wrong_input_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"got shapes \(3, 2\) and \(2, 2\)"):
        paired_cosine(IMAGES, CAPTIONS[:2])
    with pytest.raises(ValueError, match="x: 1 of 1 rows are 0"):
        paired_cosine(torch.zeros(1, 2), torch.ones(1, 2))
    with pytest.raises(ValueError, match="weight: got 0"):
        caption_score(IMAGES, CAPTIONS, weight=0)
    with pytest.raises(ValueError, match="those of 1 captions; expected at least one for each of 2"):
        reference_cosine(CAPTIONS[:2], [IMAGES, IMAGES[:0]])
    with pytest.raises(ValueError, match="negative: got 'drop'"):
        reference_augmented(torch.ones(1), torch.ones(1), negative="drop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="less their mean: 1 of 1 rows are 0"):
        standardized(torch.tensor([[1.0, 2.0]]))
