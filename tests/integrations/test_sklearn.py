"""scikit-learn: features in pipelines, zero-shot classification by the model's own scores, its checks of estimators."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

from hypvl.data.transforms import ResizeCenterCrop
from hypvl.datasets.classification.folders import ImageFolderSet
from hypvl.embedding.protocol import own_tokenizer
from hypvl.errors import DataError
from hypvl.evaluation.zero_shot import ZeroShotClassification
from hypvl.integrations.sklearn import ImageTextEmbedder, ZeroShotClassifier
from hypvl.io.images import read_image_file
from hypvl.models.dual_encoder import DualEncoder
from tests.integrations.miniature import PER_CLASS, TEMPLATES, WORDS, Miniature, load, write_checkpoint

# Those that give no matrix of numbers to an estimator.
CHECKS = [
    "estimator_cloneable", "estimator_tags_renamed", "valid_tag_types", "estimator_repr", "no_attributes_set_in_init",
    "do_not_raise_errors_in_init_or_set_params", "mixin_order", "parameters_default_constructible",
    "get_params_invariance", "set_params",
]  # fmt: skip


@pytest.fixture(scope="module")
def model(meru: Path) -> DualEncoder:
    return load(meru)


@pytest.fixture(scope="module")
def images(miniature: Miniature) -> list[Path]:
    return [
        miniature.folder / "images" / f"{c}" / f"{n}.png" for c in range(len(WORDS)) for n in range(PER_CLASS)
    ]


LABELS = np.repeat(WORDS, PER_CLASS)


def test_features_are_those_of_the_model_for_every_kind_of_image(
    model: DualEncoder, images: list[Path]
) -> None:
    few = images[:5]
    stack = torch.stack([ResizeCenterCrop.of(model)(read_image_file(path)) for path in few])
    arrays = [np.asarray(Image.open(path)) for path in few]
    kinds: list[Any] = [
        few, [str(p) for p in few], np.array([str(p) for p in few]), np.array([[str(p)] for p in few], dtype=object),
        [Image.open(path) for path in few], [path.read_bytes() for path in few], arrays, np.stack(arrays),
        torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2),
    ]  # fmt: skip
    for stage in ("features", "embeddings", "trunk"):
        embedder = ImageTextEmbedder(model, stage=stage, batch_size=2).fit()
        with torch.no_grad():
            expected = model.encode_image(stack, stage).numpy()
        for kind in kinds:
            got = embedder.transform(kind)
            assert got.dtype == np.float32 and got.shape == expected.shape == (
                5,
                len(embedder.get_feature_names_out()),
            )
            np.testing.assert_allclose(got, expected, atol=1e-5)


def test_texts_too_and_the_score_is_recall_at_1(model: DualEncoder, images: list[Path]) -> None:
    texts = [f"{word} {n} times" for word in WORDS for n in range(PER_CLASS)]
    embedder = ImageTextEmbedder(model, modality="text", stage="embeddings").fit()
    got = embedder.transform(np.array(texts))
    with torch.no_grad():
        expected = model.encode_text(own_tokenizer(model)(texts))
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-5)
    keys = torch.from_numpy(ImageTextEmbedder(model, stage="embeddings").fit().transform(images))
    with torch.no_grad():
        scores = model.scores(expected, keys, query_modality="text", key_modality="image")
    right = (scores.argmax(1) == torch.arange(len(texts))).float().mean().item()
    assert embedder.score(texts, images) == pytest.approx(right)
    assert 0 < right < 1
    with pytest.raises(ValueError, match="y: got 3 images for 4 texts; expected pairs"):
        embedder.score(texts[:4], images[:3])


def test_it_stands_in_a_pipeline_and_a_search(model: DualEncoder, images: list[Path]) -> None:
    probe = make_pipeline(ImageTextEmbedder(model), LogisticRegression(C=1e4, max_iter=500))
    assert probe.fit(images, LABELS).score(images, LABELS) > 0.6
    copied = clone(probe)
    assert copied[0].model is model and not hasattr(copied[0], "model_")  # weights are shared, fits are not
    grid = {"imagetextembedder__stage": ["features", "trunk"]}
    search = GridSearchCV(probe, grid, cv=2, error_score="raise").fit(images, LABELS)
    assert set(search.best_params_) == {"imagetextembedder__stage"}
    again = pickle.loads(pickle.dumps(probe))
    assert (again.predict(images) == probe.predict(images)).all()


@pytest.mark.parametrize("recipe", ["meru_vit_s", "clip_vit_s", "atmg_vit_s", "phyclip_vit_s"])
def test_zero_shot_is_the_model_s_own(
    recipe: str, miniature: Miniature, images: list[Path], tmp_path: Path
) -> None:
    """As hypvl's evaluator says, with several prompts of a class; probabilities have the order of the scores."""
    model = load(write_checkpoint(tmp_path / "model.pth", recipe))
    templates = [text.replace("{c}", "{}") for text in TEMPLATES]
    classifier = ZeroShotClassifier(model, templates=templates).fit(WORDS)
    prompts = {word: [text.format(word) for text in templates] for word in WORDS}
    dataset = ImageFolderSet(miniature.folder / "images")
    own = ZeroShotClassification(dataset, prompts, class_names=WORDS)(model).metrics["top1_accuracy"]
    assert classifier.score(images, LABELS) * 100 == pytest.approx(own)
    by_name = ZeroShotClassifier(model, templates=prompts).fit(WORDS)
    np.testing.assert_array_equal(by_name.predict(images), classifier.predict(images))
    scores, shares = classifier.decision_function(images), classifier.predict_proba(images)
    assert scores.dtype == shares.dtype == np.float32
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
    assert (shares.argmax(1) == scores.argmax(1)).all()
    assert (classifier.predict(images) == np.array(WORDS)[scores.argmax(1)]).all()


def test_probabilities_of_clip_are_softmaxes_of_scaled_cosines(tmp_path: Path, images: list[Path]) -> None:
    model = load(write_checkpoint(tmp_path / "clip.pth", "clip_vit_s"))
    classifier = ZeroShotClassifier(model, templates=["{}"]).fit(WORDS)
    x = ImageTextEmbedder(model, stage="embeddings").fit().transform(images)
    y = ImageTextEmbedder(model, modality="text", stage="embeddings").fit().transform(WORDS)
    logits = torch.from_numpy(x @ y.T) * model.scorer.scale.item()
    np.testing.assert_allclose(classifier.predict_proba(images), logits.softmax(1).numpy(), atol=1e-5)


def test_classes_come_from_labels_in_cross_validation(model: DualEncoder, images: list[Path]) -> None:
    scores = cross_val_score(ZeroShotClassifier(model), images, LABELS, cv=2)
    assert scores.shape == (2,) and np.isfinite(scores).all()
    numbers = np.repeat([3, 1, 2, 0], PER_CLASS)
    names = dict(zip([3, 1, 2, 0], WORDS, strict=True))
    numbered = ZeroShotClassifier(model, class_names=names).fit(images, numbers)
    named = ZeroShotClassifier(model).fit(WORDS)
    assert numbered.classes_.tolist() == [0, 1, 2, 3]
    assert [names[label] for label in numbered.predict(images)] == named.predict(images).tolist()


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("kind", [ImageTextEmbedder, ZeroShotClassifier])
def test_scikit_learn_s_own_checks(kind: Any, check: str, model: DualEncoder) -> None:
    getattr(estimator_checks, f"check_{check}")(kind.__name__, kind(model))


def test_a_model_may_be_named(meru: Path, images: list[Path], model: DualEncoder) -> None:
    named = ImageTextEmbedder(str(meru), device="cpu").fit_transform(images[:2])
    np.testing.assert_array_equal(named, ImageTextEmbedder(model).fit_transform(images[:2]))


def test_wrong_settings_and_inputs_are_named(model: DualEncoder, images: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    embedder = ImageTextEmbedder(model).fit()
    for inputs, error, message in (
        ([], ValueError, "X: got no images"),
        ("a.png", ValueError, "X: got one str; expected a list"),
        ({images[0]}, ValueError, "X: got a set; expected a list"),
        (None, ValueError, "X: got a NoneType; expected a list"),
        ([np.zeros((0, 8, 3), np.uint8)], DataError, r"X\[0\]: image: got an array uint8 \(0, 8, 3\)"),
        (
            [tmp_path / "gone.png"],
            DataError,
            r"cannot be read, and each has to be: repair it or leave it out",
        ),
        (np.array([["a", "b"]]), ValueError, r"X: got an array \(1, 2\); expected one input a row"),
        ([tmp_path / "broken.png"], DataError, r"X\[0\] \(.*broken\.png\): cannot decode"),
    ):
        with pytest.raises(error, match=message):
            embedder.transform(inputs)
    with pytest.raises(ValueError, match="X: got a PosixPath among the texts; expected strings"):
        ImageTextEmbedder(model, modality="text").fit().transform(images)
    for setting, message in (
        ({"modality": "sound"}, "modality: got 'sound'"),
        ({"stage": "all"}, "stage: got 'all'"),
        ({"resize": "pad"}, "resize: got 'pad'"),
        ({"amp": "half"}, "amp: got 'half'"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"model": None}, "model: is None; expected a model"),
    ):
        with pytest.raises(ValueError, match=message):
            ImageTextEmbedder(**{"model": model, **setting}).fit()  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(NotFittedError):
        ZeroShotClassifier(model).predict(images)
    with pytest.raises(ValueError, match=r"class_names: the label 3 is no name; give class_names=\{3: "):
        ZeroShotClassifier(model).fit([3])
    for setting, message in (({"amp": "half"}, "amp: got 'half'"), ({"resize": "pad"}, "resize: got 'pad'")):
        with pytest.raises(ValueError, match=message):
            ZeroShotClassifier(model, **setting).fit(WORDS)
    with pytest.raises(ValueError, match="class_names: has no 4"):
        ZeroShotClassifier(model, class_names={3: "cat"}).fit([3, 4])
    with pytest.raises(ValueError, match="X: got 2 classes; expected at least one, each once"):
        ZeroShotClassifier(model).fit(["cat", "cat"])
