"""One tower of a model as an ONNX file, for programs without torch: head, lifting and pixel normalisation included."""

import contextlib
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

import hypvl
from hypvl.checks import one_of
from hypvl.encoders.onnx_towers import FEATURES, HYPERBOLOID, require_onnxruntime
from hypvl.errors import DataError, UserError
from hypvl.geometry.lorentz import time_component
from hypvl.geometry.scorers import Modality
from hypvl.io.files import write_output
from hypvl.io.json_text import json_bytes
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.foreign.onnx import FORMAT_VERSION, NOTE
from hypvl.models.parts import describe

Layout: TypeAlias = Literal["hypvl", "hyper-models"]
TOLERANCE = 1e-4
_PROBE_BATCHES = (1, 5)
_PROBE_TEXTS = (
    "a photo of a cat",
    "two dogs play in the snow while a child with a red hat looks on",
    "a boat",
    "the old town at night",
    "x",
)
_IMAGE_INPUT, _TEXT_INPUT = "image", "tokens"


def export_onnx(
    model: DualEncoder,
    tower: Modality,
    path: str | Path,
    *,
    layout: Layout = "hypvl",
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a tower as an ONNX file, after its outputs were compared with the model's in onnxruntime.

    The batch is free, and so is the length of texts. Inputs: ``image`` float32 (B, 3, S, S) in [0, 1], which the file
    normalises, or ``tokens`` int64 (B, L), padded at the end. Outputs, float32:

    - layout ``"hypvl"``: ``features`` (B, D), before the lifting, and ``embeddings`` (B, D), as ``encode_image`` and
      ``encode_text`` give them; ``--model onnx:`` reads the file.
    - layout ``"hyper-models"``: ``embedding_hyperboloid`` (B, D + 1), the time component first, for images alone;
      weights lie beside the file, as ``<name>.data``.

    Metadata (geometry, curvature, preprocessing, versions) is in the file and, as JSON, beside it: ``image.json`` of
    ``image.onnx``. Tokenizers of transformers are saved beside a text tower.

    Args:
        model: Its weights and mode stay as they are.
        tower: ``"image"`` or ``"text"``.
        path: The file, which is replaced whole; its folder is made.
        layout: See above.
        about: Further metadata, such as the checkpoint; JSON-serialisable.

    Returns:
        The metadata, with ``largest_difference`` to the model.

    Raises:
        ValueError: for another tower or layout.
        UserError: when packages are missing, the model cannot be exported, or has no hyperboloid for hyper-models.
        DataError: when the file cannot be written.

    Example:
        >>> import hypvl  # doctest: +SKIP
        >>> model = hypvl.from_pretrained("output/my_model")  # doctest: +SKIP
        >>> export_onnx(model, "image", "onnx/image.onnx")["largest_difference"] < 1e-4  # doctest: +SKIP
        True
    """
    one_of("tower", tower, Modality)
    one_of("layout", layout, Layout)
    require_exporter()
    require_onnxruntime()
    path = Path(path)
    model.tower(tower)  # a model without it says so
    if layout == "hyper-models":
        check_hyperboloid(model, tower)
    network = _Tower(model, tower, layout)
    with _evaluation(model):
        example, *probes = _probes(model, tower)
        program = _program(network, example, tower, layout)
        notes = metadata(model, tower, layout=layout, about=about)
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()  # places in the source files of this machine
        program.model.metadata_props.update(_texts(notes))
        program.model.producer_name, program.model.producer_version = "hypvl", hypvl.__version__
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
                draft = Path(folder) / path.name
                program.save(draft, external_data=True if layout == "hyper-models" else None)
                difference = _compared(network, draft, probes)
                if tower == "text":
                    _save_tokenizer(model, Path(folder))
                for file in sorted(Path(folder).iterdir(), key=lambda file: file == draft):  # itself the last
                    file.replace(path.parent / file.name)
        except OSError as error:
            raise DataError(
                f"{path}: cannot be written ({error.strerror or error}); name another folder."
            ) from error
    notes = {**notes, "largest_difference": difference}
    write_output(path.with_suffix(".json"), json_bytes(notes, indent=1))
    return notes


def metadata(
    model: DualEncoder, tower: Modality, *, layout: Layout, about: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a program must know to use a tower: geometry, curvature, preprocessing or tokenizer, versions."""
    one_of("tower", tower, Modality)
    one_of("layout", layout, Layout)
    curvature = model.geometry.curvature
    return {
        "format_version": FORMAT_VERSION,
        "hypvl_version": hypvl.__version__,
        "torch_version": torch.__version__,
        "tower": tower,
        "layout": layout,
        "embed_dim": model.embed_dim,
        "geometry": describe(model.geometry),
        "scorer": describe(model.scorer),
        "curvature": None if curvature is None else [-float(c) for c in curvature],
        "feature_transforms": len(model.image_transforms) + len(model.text_transforms),
        **({"image": _of_images(model)} if tower == "image" else {"text": _of_texts(model)}),
        **(about or {}),
    }


def check_hyperboloid(model: DualEncoder, tower: Modality) -> None:
    """UserError for what hyper-models has no layout for: texts, and spaces other than one hyperboloid."""
    one_of("tower", tower, Modality)
    curvature = model.geometry.curvature
    if tower != "image":
        raise UserError(
            "hyper-models: loads image towers of ONNX files alone; export the text tower with --to onnx."
        )
    if curvature is None or curvature.numel() != 1:
        factors = "no hyperbolic space" if curvature is None else f"a product of {curvature.numel()} of them"
        raise UserError(
            f"hyper-models: loads points of one hyperboloid, but this model's {type(model.geometry).__name__} is "
            f"{factors}; export with --to onnx."
        )


class _Tower(nn.Module):
    """Inputs -> outputs of the file."""

    def __init__(self, model: DualEncoder, tower: Modality, layout: Layout) -> None:
        super().__init__()
        self.model, self.modality, self.layout = model, tower, layout

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        encode = self.model.encode_image if self.modality == "image" else self.model.encode_text
        features = encode(inputs, stage="features")
        embeddings = self.model.embed(features, modality=self.modality)
        if self.layout == "hypvl":
            # The sphere's features may be embeddings already; two outputs are two tensors.
            return features.float() + 0.0, embeddings.float()
        points = self.model.geometry.space_components(embeddings)
        curv = self.model.geometry.curvature
        assert curv is not None
        return (torch.cat((time_component(points, curv=curv), points), dim=-1).float(),)


def _program(network: nn.Module, example: Tensor, tower: Modality, layout: Layout) -> Any:
    """The exported network."""
    axes = {0: "batch"} if tower == "image" else {0: "batch", 1: "length"}
    outputs = [FEATURES, "embeddings"] if layout == "hypvl" else [f"embedding_{HYPERBOLOID}"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about its own interfaces
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                dynamic_shapes=(axes,),
                input_names=[_IMAGE_INPUT if tower == "image" else _TEXT_INPUT],
                output_names=outputs,
                verbose=False,
            )
    except Exception as error:  # whatever an encoder's code raises while it is recorded
        raise UserError(
            f"the {tower} tower: torch cannot export it to ONNX ({_reason(error)}); export the other tower, or use a "
            "model with another encoder."
        ) from error
    assert program is not None
    shape: Any = program.model.graph.inputs[0].shape
    fixed = [name for axis, name in axes.items() if isinstance(shape[axis], int)]
    if fixed:
        raise UserError(
            f"the {tower} tower: torch fixes its {' and '.join(fixed)} at that of the example while exporting; use a "
            "model with another encoder."
        )
    return program


@torch.no_grad()
def _compared(network: nn.Module, path: Path, probes: list[Tensor]) -> float:
    """Largest difference between the file in onnxruntime and the model. UserError for more than the tolerance."""
    runtime = require_onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # errors are raised as well
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        worst = 0.0
        for probe in probes:
            outputs = session.run(None, {name: probe.cpu().numpy()})
            for own, other in zip(network(probe), outputs, strict=True):
                wanted = own.double().cpu().numpy()
                size = max(1.0, float(np.abs(wanted).max()))
                worst = max(worst, float(np.abs(wanted - other).max()) / size)
    except Exception as error:  # onnxruntime's own classes, which derive from Exception alone
        raise UserError(
            f"the exported file: onnxruntime cannot run it ({_reason(error)}); nothing was written."
        ) from error
    if not worst <= TOLERANCE:
        raise UserError(
            f"the exported file: its outputs differ from the model's by {worst:.3g}; expected at most {TOLERANCE:g}, "
            "nothing was written."
        )
    return worst


def _probes(model: DualEncoder, tower: Modality) -> list[Tensor]:
    """The example to record, and other batches to compare."""
    device = next(model.parameters()).device
    if tower == "image":
        generator = torch.Generator().manual_seed(0)
        size = model.image_size
        return [
            torch.rand(count, 3, size, size, generator=generator).to(device) for count in (2, *_PROBE_BATCHES)
        ]
    texts = [_PROBE_TEXTS[:2], _PROBE_TEXTS[2:3], _PROBE_TEXTS]
    # A tower with fewer ids than the tokenizer gives takes its last one, as miniatures do.
    last = int(getattr(model.textual, "vocab_size", 2**31)) - 1
    return [model.tokenizer(list(some)).clamp(max=last).to(device) for some in texts]


@contextlib.contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.train(False)
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _of_images(model: DualEncoder) -> dict[str, Any]:
    """What an image goes through before it is the input."""
    own = model.image_transform
    return {
        "input": f"{_IMAGE_INPUT}: float32 (B, 3, {model.image_size}, {model.image_size}), RGB in [0, 1]; the file "
        "normalises it",
        "size": model.image_size,
        "interpolation": model.interpolation,
        "resize_mode": model.resize_mode,
        "library_transform": None if own is None else repr(own),
        **{name: values for name in ("mean", "std") if (values := _pixel(model, name)) is not None},
    }


def _pixel(model: DualEncoder, name: str) -> list[float] | None:
    values = getattr(model.visual, f"pixel_{name}", None)
    return values.flatten().tolist() if isinstance(values, Tensor) else None


def _of_texts(model: DualEncoder) -> dict[str, Any]:
    """What makes the tokens."""
    tokenizer = model.tokenizer
    return {
        "input": f"{_TEXT_INPUT}: int64 (B, L), L at most {model.context_length}, filled at the end with pad_token",
        "context_length": model.context_length,
        "pad_token": int(getattr(tokenizer, "pad_token", 0)),
        "vocabulary": getattr(tokenizer, "vocabulary", None),
        "template": getattr(tokenizer, "template", None),
        "tokenizer": type(tokenizer).__name__,
    }


def _save_tokenizer(model: DualEncoder, folder: Path) -> None:
    """The files of a tokenizer of transformers."""
    save = getattr(getattr(model.tokenizer, "tokenizer", None), "save_pretrained", None)
    if save is not None:
        save(str(folder))


def _texts(notes: Mapping[str, Any]) -> dict[str, str]:
    """Metadata of a file: texts alone."""
    flat = {NOTE: json_bytes(notes).decode(), "hypvl_version": notes["hypvl_version"]}
    flat["geometry"] = notes["geometry"]["class"].rpartition(".")[2]
    if notes["curvature"] is not None and len(notes["curvature"]) == 1:
        flat["curvature"] = repr(notes["curvature"][0])
    return flat


def _reason(error: BaseException) -> str:
    """The first lines that say something, of the innermost error."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(' '.join(lines[:3] or ['no message']).split())[:240]}"


def require_exporter() -> None:
    """Raises UserError, saying what to install, when what torch exports with is absent."""
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            "exporting to ONNX needs onnxscript, which is not installed: pip install 'hypvl[export-onnx]'."
        ) from error
