import pytest

from benchmarks import rkd


@pytest.mark.slow  # a process that loads torch
def test_figures_of_a_tiny_run() -> None:
    result = rkd.measure(rkd.parser().parse_args(["--batch", "32", "--dim", "8", "--check-batch", "16"]))
    assert result["triples_mib"] == 32**3 * 4 / 2**20
    assert result["seconds"] > 0 and result["memory_ratio"] >= 0


def test_gradients_are_those_of_the_usual_code() -> None:
    assert 0 < rkd.gradient_error(24, 8) < 1e-5


def test_both_features_differ_and_only_the_students_are_trained() -> None:
    student, teacher = rkd.features(6, 3)
    assert student.requires_grad and not teacher.requires_grad
    assert (student - teacher).abs().min() > 0
