"""Models of hypvl as estimators of scikit-learn: features of images or texts, and zero-shot classification."""

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from hypvl.checks import one_of
from hypvl.cli.loading import pick_device
from hypvl.data.transforms import ResizeCenterCrop, Squeeze
from hypvl.datasets.classification.prompts import class_prompts
from hypvl.embedding.encode import Amp, CachedEncoder, Encoding
from hypvl.embedding.protocol import Modality, Stage, check_scores, evaluating
from hypvl.errors import DataError
from hypvl.integrations.wrapping import Resize
from hypvl.io.images import pixels_of
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.foreign import LOADERS, load_foreign
from hypvl.models.hub import create_model

_ROWS_AT_ONCE = 1024  # images that are scored together


class _Estimator(BaseEstimator):
    """What both estimators share: a model, and how inputs become rows."""

    model: Any
    resize: Resize
    batch_size: int
    num_workers: int
    amp: Amp
    device: str | None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False  # paths, images or texts
        tags.input_tags.string = True
        tags.no_validation = True
        return tags

    def __sklearn_clone__(self) -> Self:
        """Another one with the same settings and the same model: fitting does not change it, so it is not copied."""
        return type(self)(**self.get_params(deep=False))

    def _load(self) -> DualEncoder:
        """The model, loaded where ``model`` names one."""
        one_of("resize", self.resize, Resize)
        self._encoding()  # refuses what is wrong
        if hasattr(self.model, "encode_image"):
            given: DualEncoder = self.model
            return given
        device = pick_device(self.device)
        if str(self.model).partition(":")[0] in set(LOADERS) - {"open_clip"}:
            return load_foreign(str(self.model), device=device).model
        return create_model(self.model, device=device)

    def _encoding(self) -> Encoding:
        return Encoding(
            batch_size=self.batch_size, num_workers=self.num_workers, amp=self.amp, max_bad_fraction=0.0
        )

    def _rows(self, model: DualEncoder, inputs: Any, modality: Modality, stage: Stage) -> Tensor:
        """Inputs as rows (N, D) of a stage, on the CPU; ValueError for none, or for other inputs than these."""
        items = _items(inputs)
        if not items:
            raise ValueError(f"X: got no {modality}s; expected at least one.")
        encoder = CachedEncoder(model, encoding=self._encoding())
        if modality == "text":
            wrong = next((item for item in items if not isinstance(item, str)), None)
            if wrong is not None:
                raise ValueError(f"X: got a {type(wrong).__name__} among the texts; expected strings.")
            return encoder.encode_texts([str(item) for item in items], stage=stage)
        fit = ResizeCenterCrop.of(model) if self.resize == "crop" else Squeeze.of(model)
        return encoder.encode_images(_Images(items), transform=fit, stage=stage).embeddings


class ImageTextEmbedder(TransformerMixin, _Estimator):
    """Images or texts as features, for a ``Pipeline``.

    Nothing is learned: :meth:`fit` loads the model.

    Args:
        model: A ``DualEncoder``, or what names one: a checkpoint, the folder of a run or of ``save_pretrained``,
            ``"hf-hub:owner/name"`` (see :func:`hypvl.create_model`), ``"hf:..."``. It is never trained nor copied.
        modality: Of the inputs: ``"image"`` or ``"text"``.
        stage: ``"features"`` are flat, and what a linear classifier wants; ``"embeddings"`` lie on the manifold;
            ``"trunk"`` is the encoder's output before the projection.
        resize: ``"crop"`` the centre of the resized image, or ``"squeeze"`` all of it to a square.
        batch_size: Inputs per forward pass.
        num_workers: Processes that read images; 0 = none.
        amp: Autocast of the encoders: False, ``"bf16"`` or ``"fp16"``.
        device: Where a named model is put; None = a GPU if there is one.

    Images are paths, PIL images, bytes, uint8 arrays (H, W, 3) or tensors (3, H, W); an array (N, H, W, 3) is N images.

    Example:
        >>> import hypvl
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.pipeline import make_pipeline
        >>> embedder = ImageTextEmbedder(hypvl.create_model("clip_vit_s"), modality="text")
        >>> embedder.fit_transform(["a cat", "a dog"]).shape
        (2, 512)
        >>> probe = make_pipeline(embedder, LogisticRegression()).fit(["a cat", "a dog"], [0, 1])
        >>> probe.predict(["a dog"]).shape
        (1,)
    """

    def __init__(
        self,
        model: Any = None,
        *,
        modality: Modality = "image",
        stage: Stage = "features",
        resize: Resize = "crop",
        batch_size: int = 64,
        num_workers: int = 0,
        amp: Amp = False,
        device: str | None = None,
    ) -> None:
        self.model = model
        self.modality = modality
        self.stage = stage
        self.resize = resize
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.amp = amp
        self.device = device

    def fit(self, X: Any = None, y: Any = None) -> Self:  # noqa: N803  # scikit-learn's name
        """Load the model; the inputs are not looked at. Raises ValueError for a setting that is none."""
        one_of("modality", self.modality, Modality)
        one_of("stage", self.stage, Stage)
        _check_model(self.model)
        self.model_ = self._load()
        return self

    def transform(self, X: Any) -> np.ndarray:  # noqa: N803
        """Inputs as float32 (N, D). Raises DataError for an image that cannot be read."""
        check_is_fitted(self)
        return _array(self._rows(self.model_, X, self.modality, self.stage))

    def score(self, X: Any, y: Any) -> float:  # noqa: N803
        """Share in [0, 1] of the inputs whose own partner has the highest score of all partners (recall at 1).

        Args:
            X: N inputs of this estimator's modality.
            y: Their N partners, of the other modality: captions of images, or images of texts.
        """
        check_is_fitted(self)
        other: Modality = "text" if self.modality == "image" else "image"
        queries = self._rows(self.model_, X, self.modality, "embeddings")
        keys = self._rows(self.model_, y, other, "embeddings")
        if len(queries) != len(keys):
            raise ValueError(
                f"y: got {len(keys)} {other}s for {len(queries)} {self.modality}s; expected pairs."
            )
        hits = 0
        with evaluating(self.model_) as device:
            for start in range(0, len(queries), _ROWS_AT_ONCE):
                rows = queries[start : start + _ROWS_AT_ONCE].to(device)
                scores = self.model_.scores(
                    rows, keys.to(device), query_modality=self.modality, key_modality=other
                )
                check_scores(scores)
                own = scores.gather(1, torch.arange(start, start + len(rows), device=device)[:, None])
                hits += int((own[:, 0] >= scores.amax(1)).sum())
        return hits / len(queries)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """``hypvl0``, ``hypvl1``, ..., one for each column."""
        check_is_fitted(self)
        width = self.model_.embed_dim
        if self.stage == "trunk":
            width = int(self.model_.tower(self.modality).width)  # type: ignore[arg-type]  # nn.Module attributes
        return np.array([f"hypvl{i}" for i in range(width)], dtype=object)


class ZeroShotClassifier(ClassifierMixin, _Estimator):
    """Images to classes by the scores of a model for prompts with the names of the classes.

    No image is needed to fit it: :meth:`fit` takes the names. Scores are the model's own ``class_scores``.

    Args:
        model: As of :class:`ImageTextEmbedder`.
        templates: Prompts with ``{}`` for the name of the class, or name -> whole prompts; several of a class are
            combined as the model does.
        class_names: Label -> name, where labels are not names themselves.
        resize, batch_size, num_workers, amp, device: As of :class:`ImageTextEmbedder`.

    Attributes:
        classes_: The labels, (C,).

    Example:
        >>> import hypvl
        >>> from PIL import Image
        >>> classifier = ZeroShotClassifier(hypvl.create_model("clip_vit_s")).fit(["cat", "dog"])
        >>> classifier.predict_proba([Image.new("RGB", (40, 40))]).shape
        (1, 2)
    """

    def __init__(
        self,
        model: Any = None,
        *,
        templates: Sequence[str] | Mapping[str, Sequence[str]] = ("a photo of a {}.",),
        class_names: Mapping[Any, str] | None = None,
        resize: Resize = "crop",
        batch_size: int = 64,
        num_workers: int = 0,
        amp: Amp = False,
        device: str | None = None,
    ) -> None:
        self.model = model
        self.templates = templates
        self.class_names = class_names
        self.resize = resize
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.amp = amp
        self.device = device

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803
        """Encode the prompts of the classes.

        Args:
            X: The classes, in the order that ``classes_`` shall have; with ``y`` anything, for images are not used.
            y: Labels of images: the classes are the distinct ones, sorted. None = ``X`` has the classes.

        Raises:
            ValueError: No class, a class twice, or a label without a name.
        """
        _check_model(self.model)
        labels = np.asarray(_items(X)) if y is None else np.unique(np.asarray(y))
        if not len(labels) or labels.ndim != 1 or len(set(labels.tolist())) < len(labels):
            raise ValueError(
                f"{'X' if y is None else 'y'}: got {len(labels)} classes; expected at least one, each once."
            )
        names = [self._name(label) for label in labels.tolist()]
        prompts = class_prompts(self.templates, names)
        self.model_ = self._load()
        self.classes_ = labels
        texts = [text for texts in prompts for text in texts]
        features = self._rows(self.model_, texts, "text", "features")
        self._prompts = list(features.split([len(texts) for texts in prompts]))
        return self

    def decision_function(self, X: Any) -> np.ndarray:  # noqa: N803
        """The model's class scores, float32 (N, C); higher = closer. Not one column where there are two classes."""
        return self._scores(X, "class_scores")

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """The class with the highest score, (N,)."""
        scores = self.decision_function(X)  # first: it says so where the estimator is not fitted
        return self.classes_[scores.argmax(1)]

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Softmax of the model's logits, float32 (N, C): higher where the score is higher, rows add up to 1."""
        return _array(torch.from_numpy(self._scores(X, "class_logits")).softmax(-1))

    def _scores(self, images: Any, method: str) -> np.ndarray:
        check_is_fitted(self)
        embeddings = self._rows(self.model_, images, "image", "embeddings")
        blocks = []
        with evaluating(self.model_) as device:
            prompts = [features.to(device) for features in self._prompts]
            for block in embeddings.split(_ROWS_AT_ONCE):
                scores = getattr(self.model_, method)(block.to(device), prompts)
                check_scores(scores)
                blocks.append(scores.cpu())
        return _array(torch.cat(blocks))

    def _name(self, label: Any) -> str:
        if self.class_names is None:
            if not isinstance(label, str):
                raise ValueError(
                    f"class_names: the label {label!r} is no name; give class_names={{{label!r}: 'its name', ...}}."
                )
            return label
        if label not in self.class_names:
            raise ValueError(f"class_names: has no {label!r}; expected a name for each label.")
        return self.class_names[label]


class _Images:
    """Images in any form, as the encoder reads them."""

    def __init__(self, items: Sequence[Any]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Tensor:
        item = self._items[index]
        try:
            return pixels_of(item)
        except (OSError, ValueError, TypeError) as error:
            name = f" ({item})" if isinstance(item, str | Path) else ""
            raise DataError(f"X[{index}]{name}: {error}") from error


def _items(inputs: Any) -> list[Any]:
    """N inputs as a list: of a list, a series, an array (N,) or (N, 1), or a stack of images."""
    if isinstance(inputs, str | bytes):
        raise ValueError(f"X: got one {type(inputs).__name__}; expected a list of inputs.")
    if inputs is None or isinstance(inputs, Mapping | Set):  # without an order, or without values
        raise ValueError(f"X: got a {type(inputs).__name__}; expected a list of inputs.")
    if isinstance(inputs, Tensor):
        return list(inputs)
    if hasattr(inputs, "to_numpy"):  # of pandas and polars
        inputs = inputs.to_numpy()
    if isinstance(inputs, np.ndarray) and inputs.dtype.kind in "OUS":
        if inputs.size != len(inputs):
            raise ValueError(f"X: got an array {inputs.shape}; expected one input a row.")
        return inputs.ravel().tolist()
    return list(inputs)


def _check_model(model: Any) -> None:
    if model is None:
        raise ValueError("model: is None; expected a model, or the name or path of one.")


def _array(rows: Tensor) -> np.ndarray:
    return rows.float().cpu().numpy()
