"""Means of modalities: fitted by looking on, saved with what they are of, taken out of embeddings."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypvl.datasets.classification.folders import ImageFolderSet
from hypvl.datasets.retrieval.table import table
from hypvl.embedding.encode import CachedEncoder, Encoding
from hypvl.errors import CheckpointError, ConfigError, DataError, UserError
from hypvl.evaluation.mean_removal import (
    MeanRecorder,
    ModalityMeans,
    centre,
    fit,
    flat_mean,
    load,
    model_fingerprint,
    save,
)
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.evaluation.retrieval import ZeroShotRetrieval
from hypvl.evaluation.zero_shot import ZeroShotClassification
from hypvl.geometry.euclidean import Euclidean
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.sphere import Sphere
from tests.evaluation.fakes import BLUE, GREEN, RED, FakeModel, FakeTokenizer, image

ENCODING = Encoding(batch_size=2, num_workers=0)


class FlatModel(FakeModel):
    """The colour model in a flat space."""

    geometry = Euclidean()


def retrieval(folder: Path) -> ZeroShotRetrieval:
    for name, color in (("a", RED), ("b", BLUE), ("c", GREEN)):
        image(folder / f"{name}.png", color)
    lines = ['{"image": "a.png", "caption": "red"}', '{"image": "b.png", "captions": ["blue", "red blue"]}',
             '{"image": "c.png", "captions": []}']  # fmt: skip
    (folder / "set.jsonl").write_text("\n".join(lines))
    dataset = table(folder / "set.jsonl")
    return ZeroShotRetrieval(dataset, ks=[1], encoding=ENCODING, tokenizer=FakeTokenizer())


def means(**changes: Any) -> ModalityMeans:
    given: dict[str, Any] = {
        "image_mean": torch.tensor([0.1, 0.2]), "text_mean": torch.tensor([-0.3, 0.0]),
        "images": 5, "texts": 25, "model": "abc", "set_name": "a set",
    }  # fmt: skip
    return ModalityMeans(**{**given, **changes})


def test_retrieval_means_are_those_of_all_images_and_captions(tmp_path: Path) -> None:
    result = fit(retrieval(tmp_path), FlatModel(), fingerprint="f", set_name="colours")
    torch.testing.assert_close(result.image_mean, torch.full((3,), 1 / 3, dtype=torch.float64))
    torch.testing.assert_close(result.text_mean, torch.tensor([2 / 3, 0.0, 2 / 3], dtype=torch.float64))
    assert result.meta() == {"model": "f", "set": "colours", "images": 3, "texts": 3}


def test_a_class_counts_once_whatever_its_prompts_and_the_number_of_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, color in (("red", RED), ("blue", BLUE)):
        for i in range(3):
            image(tmp_path / name / f"{i}.png", color)
    monkeypatch.setattr("hypvl.evaluation.class_scores._MAX_BLOCK", 2)
    evaluator = ZeroShotClassification(
        ImageFolderSet(tmp_path),
        {"red": ["red", "red yellow", "red"], "blue": ["blue"]},
        encoding=ENCODING,
        tokenizer=FakeTokenizer(),
    )
    result = fit(evaluator, FlatModel(), fingerprint="f", set_name="s")
    assert (result.images, result.texts) == (6, 2)
    red = torch.tensor([1 + 0.7 / 3, 0.7 / 3, 0.0])
    expected = (red + torch.tensor([0.0, 0.0, 1.0])) / 2
    torch.testing.assert_close(result.text_mean, expected.double(), rtol=1e-6, atol=1e-6)


def test_the_evaluator_gives_the_same_under_the_recorder(tmp_path: Path) -> None:
    evaluator, model = retrieval(tmp_path), FlatModel()
    model.train(True)
    plain, watched = evaluator(model), evaluator(MeanRecorder(model))  # type: ignore[arg-type]
    assert plain == watched and model.training


def test_means_are_of_flat_embeddings() -> None:
    x = 0.4 * torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lorentz = Lorentz(curv_init=0.5).double()
    torch.testing.assert_close(flat_mean(lorentz.lift(x), geometry=lorentz), x.mean(0))
    torch.testing.assert_close(flat_mean(Sphere().lift(x), geometry=Sphere()), F.normalize(x, dim=-1).mean(0))


def test_centring_by_hand_in_each_space() -> None:
    x, mean = torch.tensor([[0.6, 0.8], [1.0, 0.0]], dtype=torch.float64), torch.tensor([0.6, 0.0])
    result = centre(x, mean, geometry=Sphere())
    torch.testing.assert_close(result, torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64))
    assert torch.equal(centre(x, mean, geometry=Euclidean()), x - mean.to(x))
    lorentz = Lorentz().double()
    torch.testing.assert_close(centre(lorentz.lift(x), mean, geometry=lorentz), lorentz.lift(x - mean.to(x)))


def test_before_normalising_the_mean_is_zero() -> None:
    x = F.normalize(torch.randn(50, 4, generator=torch.Generator().manual_seed(0)).double() + 1, dim=-1)
    mean = flat_mean(x, geometry=Sphere())
    assert (x - mean).mean(0).norm() < 1e-15
    assert centre(x, mean, geometry=Sphere()).mean(0).norm() < 0.25 * mean.norm()  # lengths differ


class OnlyImages(Evaluator):
    main_metric = "none"

    def measure(self, model: Any, encoder: CachedEncoder) -> EvaluationResult:
        model.encode_image(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
        return EvaluationResult({})


def test_a_modality_that_is_never_encoded_is_an_error() -> None:
    model = FlatModel()
    model.train(False)
    with pytest.raises(DataError, match="colours: its evaluation encodes no texts"):
        fit(OnlyImages(), model, fingerprint="f", set_name="colours")


def test_a_model_that_has_diverged_has_no_mean(tmp_path: Path) -> None:
    model = FlatModel()
    with torch.no_grad():
        model.table.fill_(float("nan"))
    with pytest.raises(UserError, match="NaN"):
        fit(retrieval(tmp_path), model, fingerprint="f", set_name="s")


@pytest.mark.parametrize("name", ["means.safetensors", "means.pt", "new/folder/means.safetensors"])
def test_means_are_equal_after_save_and_load(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    save(means(), path)
    result = load(path)
    assert result.meta() == means().meta()
    assert torch.equal(result.image_mean, means().image_mean)
    assert torch.equal(result.mean("text"), means().text_mean)
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no draft stays


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_files_that_are_something_else(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.pt: no such file"):
        load(tmp_path / "none.pt")
    with pytest.raises(ConfigError, match=r"means\.npy: ends in '\.npy'; expected \.safetensors or \.pt"):
        load(tmp_path / "means.npy")
    with pytest.raises(ConfigError, match="ends in"):
        save(means(), tmp_path / "means")
    trace = tmp_path / "executed"
    torch.save({"image_mean": Touch(trace)}, tmp_path / "evil.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Touch(trace)))
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0")
    (tmp_path / "empty.pt").write_bytes(b"")
    torch.save({"model": {"a": torch.zeros(2)}}, tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"image_mean": 3, "text_mean": 4, "meta": {"format_version": 1, "images": 1, "texts": 1, "model": "m",
                                                          "set": "s"}}, tmp_path / "numbers.pt")  # fmt: skip
    for name in ("evil.pt", "plain.pt", "cut.safetensors", "empty.pt", "other.pt", "list.pt", "numbers.pt"):
        with pytest.raises(CheckpointError, match=f"{name}: holds no means"):
            load(tmp_path / name)
    assert not trace.exists()


def test_values_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got shapes \(2,\) and \(3,\)"):
        means(text_mean=torch.zeros(3))
    save(means(text_mean=torch.tensor([0.0, float("inf")])), tmp_path / "inf.pt")
    with pytest.raises(CheckpointError, match="not finite"):
        load(tmp_path / "inf.pt")
    save(means(), tmp_path / "late.pt")
    content = torch.load(tmp_path / "late.pt", weights_only=True)
    torch.save({**content, "meta": {**content["meta"], "format_version": 99}}, tmp_path / "late.pt")
    with pytest.raises(CheckpointError, match="format_version 99; install a later hypvl"):
        load(tmp_path / "late.pt")


def test_a_fingerprint_sees_every_weight_name_and_type() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    state: dict[str, Tensor] = copy.deepcopy(model.state_dict())
    first = model_fingerprint(state)
    assert first == model_fingerprint(dict(reversed(state.items())))
    changed = [
        {**state, "0.bias": state["0.bias"] + 1e-6},
        {**state, "1.num_batches_tracked": state["1.num_batches_tracked"] + 1},
        {**state, "0.bias": state["0.bias"].double()},
        {**state, "0.weight": state["0.weight"].reshape(4)},
        {("x" if k == "0.bias" else k): v for k, v in state.items()},
    ]
    assert len({first, *(model_fingerprint(other) for other in changed)}) == 6
    assert model_fingerprint({"a": torch.zeros(2).bfloat16()}) != model_fingerprint(
        {"a": torch.ones(2).bfloat16()}
    )
