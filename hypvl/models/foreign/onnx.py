"""Models in ONNX files: an image encoder alone, as hyper-models publishes them, or with a text encoder beside it.

Files of ``hypvl export`` note the geometry and the scorer, which are built again; of others both are guessed from the
outputs.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hypvl.encoders.mlp_heads import IdentityHead
from hypvl.encoders.onnx_towers import (
    FEATURES,
    HYPERBOLOID,
    OnnxFile,
    OnnxImageEncoder,
    OnnxTextEncoder,
    require_onnxruntime,
    text_length,
    text_tokenizer,
)
from hypvl.errors import CheckpointError
from hypvl.geometry.base import Geometry
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scorers import Cosine, NegativeDistance, Scorer
from hypvl.geometry.sphere import Sphere
from hypvl.io.json_text import parse_json
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.foreign.record import ForeignModel, about
from hypvl.models.parts import rebuild

IMAGE_FILES, TEXT_FILE = ("image.onnx", "model.onnx"), "text.onnx"
_DATA = (".data", "_data")  # endings of the weights beside a file
#: Key of a file's metadata that ``hypvl export`` writes, JSON, and the version of its content.
NOTE, FORMAT_VERSION = "hypvl", 1
_PROBES = 5
# How far 1 / (t^2 - |x|^2) of several points may differ, and from a curvature that a file notes.
_TOLERANCE = 1e-2


def load(place: str, *, device: str | torch.device = "cpu") -> ForeignModel:
    """``IMAGE.onnx``, ``IMAGE.onnx,TEXT.onnx``, or a folder with ``image.onnx`` (or ``model.onnx``) and ``text.onnx``.

    Raises:
        UserError: when onnxruntime is not installed.
        CheckpointError: for missing files, other inputs and outputs, or two files that do not fit together.
    """
    require_onnxruntime()
    image_path, text_path = _files(place)
    image_file = OnnxFile(image_path, device=device)
    text_file = None if text_path is None else OnnxFile(text_path, device=device)
    paths = [path for path in (image_path, text_path) if path is not None]
    weights = [data for path in paths for ending in _DATA if (data := Path(f"{path}{ending}")).is_file()]
    files = [*paths, *weights, *_tokenizer_files(text_path)]
    record = about("onnx", "onnxruntime", id=place, architecture="ONNX files", files=files)
    digest = "".join(record["files"].values())
    visual = OnnxImageEncoder(image_file, digest=digest)
    notes = _notes(image_file)
    textual = None
    if text_file is not None:
        textual = _text_encoder(text_file, digest=digest)
        _check_pair(image_file, text_file, visual.width, textual.width)
        _check_same_model(notes, _notes(text_file), image_file, text_file)
    if notes is not None:
        _prepare(visual, notes, image_file)
    output = image_file.output().name
    if output == FEATURES and notes is not None:
        return ForeignModel(_of_hypvl(visual, textual, notes, image_file), record)
    points = output.endswith(HYPERBOLOID)
    model = _hyperbolic(visual, textual, image_file) if points else _flat(visual, textual)
    return ForeignModel(model, record)


def _notes(file: OnnxFile) -> dict[str, Any] | None:
    """What ``hypvl export`` has noted in a file; None for another program's."""
    text = file.notes.get(NOTE)
    if text is None:
        return None
    try:
        notes = parse_json(text)
        version = notes["format_version"]
    except (ValueError, LookupError, TypeError) as error:
        raise CheckpointError(
            f"{file.path}: its note of hypvl cannot be read ({error!r}); export it again."
        ) from error
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{file.path}: has format_version {version}; expected {FORMAT_VERSION}, install the hypvl that wrote it."
        )
    return dict(notes)


def _text_encoder(file: OnnxFile, *, digest: str) -> OnnxTextEncoder:
    notes = _notes(file)
    folder = file.path.parent
    if notes is None:
        tokenizer = text_tokenizer(folder, context_length=text_length(file))
        return OnnxTextEncoder(file, tokenizer=tokenizer, digest=digest)
    texts = _noted(notes, "text", file)
    tokenizer = text_tokenizer(folder, context_length=texts["context_length"], template=texts["template"])
    if texts["vocabulary"] != tokenizer.vocabulary:
        raise CheckpointError(
            f"{file.path}: takes the ids of a {texts['tokenizer']}, which is neither CLIP's nor in the folder's "
            "tokenizer.json; evaluate the model that was exported."
        )
    return OnnxTextEncoder(file, tokenizer=tokenizer, digest=digest, fill_id=texts["pad_token"])


def _noted(notes: dict[str, Any], key: str, file: OnnxFile) -> dict[str, Any]:
    value = notes.get(key)
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{file.path}: is the {notes.get('tower')} tower of a model; expected the {key} tower."
        )
    return value


def _prepare(visual: OnnxImageEncoder, notes: dict[str, Any], file: OnnxFile) -> None:
    """How images are resized for the encoder, as the exported model does it."""
    images = _noted(notes, "image", file)
    if images["library_transform"] is not None:
        raise CheckpointError(
            f"{file.path}: its images go through a transform of another library ({images['library_transform']}), which "
            "is not in the file; evaluate the model that was exported."
        )
    try:
        visual.resize_as(images["interpolation"], images["resize_mode"])
    except ValueError as error:
        raise CheckpointError(f"{file.path}: notes {error}") from error


def _of_hypvl(
    visual: OnnxImageEncoder, textual: OnnxTextEncoder | None, notes: dict[str, Any], file: OnnxFile
) -> DualEncoder:
    """Features, lifted and ranked as the exported model does it."""
    if notes["feature_transforms"]:
        raise CheckpointError(
            f"{file.path}: the model has feature transforms, which act after the prompts of a class are pooled and are "
            "part of `embeddings` alone; evaluate the model that was exported."
        )
    return DualEncoder(
        visual,
        textual,
        visual_head=IdentityHead,
        textual_head=None if textual is None else IdentityHead,
        geometry=rebuild(notes["geometry"], Geometry, source=file.path),  # type: ignore[type-abstract]
        scorer=rebuild(notes["scorer"], Scorer, source=file.path),
    )


def _hyperbolic(visual: OnnxImageEncoder, textual: OnnxTextEncoder | None, file: OnnxFile) -> DualEncoder:
    """Points of a hyperboloid, ranked by their distance."""
    geometry = Lorentz(curv_init=_curvature(visual, file), learn_curv=False)
    return DualEncoder(
        visual,
        textual,
        visual_head=lambda width: FlattenedHead(geometry, width),
        textual_head=None if textual is None else lambda width: FlattenedHead(geometry, width),
        geometry=geometry,
        scorer=NegativeDistance(),
    )


def _flat(visual: OnnxImageEncoder, textual: OnnxTextEncoder | None) -> DualEncoder:
    """Vectors, ranked by their cosine."""
    head = None if textual is None else IdentityHead
    return DualEncoder(
        visual, textual, visual_head=IdentityHead, textual_head=head, geometry=Sphere(), scorer=Cosine()
    )


class FlattenedHead(nn.Module):
    """Points of a hyperboloid, time first, as flat features: (B, D + 1) -> (B, D)."""

    def __init__(self, geometry: Lorentz, width: int) -> None:
        super().__init__()
        self.out_features = width - 1
        self._flatten = geometry.flatten  # not a child: the model has the geometry

    def forward(self, points: Tensor) -> Tensor:
        return self._flatten(points[..., 1:])


@torch.no_grad()
def _curvature(visual: OnnxImageEncoder, file: OnnxFile) -> float:
    """c of the hyperboloid t^2 - |x|^2 = 1 / c on which the file puts images."""
    size = visual.image_size
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(_PROBES, 3, size, size, generator=generator)
    pixels[0], pixels[1] = 0.0, 1.0
    points = visual.encode(pixels).double()
    squares = points[:, 0].square() - points[:, 1:].square().sum(-1)  # 1 / c
    nearest = float(squares[points[:, 0].argmin()])  # the one with the most digits
    noise = 1e-5 * float(points[:, 0].square().max())
    if not nearest > 0 or float((squares - nearest).abs().max()) > _TOLERANCE * nearest + noise:
        raise CheckpointError(
            f"{file.path}: output {file.output().name} is on no hyperboloid: t^2 - |x|^2 is {squares.min():.4g} to "
            f"{squares.max():.4g} of {_PROBES} images; expected one positive number, 1 / c, the time component first."
        )
    noted = next((file.notes[name] for name in ("curvature", "curv") if name in file.notes), None)
    if noted is None:
        return 1 / nearest
    said = abs(float(noted))
    if not math.isclose(said, 1 / nearest, rel_tol=_TOLERANCE + noise / nearest):
        raise CheckpointError(
            f"{file.path}: notes the curvature {noted}, but its points have {1 / nearest:.4g}; expected the same."
        )
    return said


def _check_pair(image: OnnxFile, text: OnnxFile, *widths: int) -> None:
    """Refuse an image and a text encoder whose outputs cannot be compared."""
    kinds = [file.output().name.endswith(HYPERBOLOID) for file in (image, text)]
    if len(set(kinds)) > 1 or len(set(widths)) > 1:
        outputs = " and ".join(
            f"{file.output().name} of {width}" for file, width in zip((image, text), widths, strict=True)
        )
        raise CheckpointError(
            f"{image.path} and {text.path}: outputs {outputs} numbers; expected two of one space and width."
        )


def _check_same_model(image: dict[str, Any] | None, text: dict[str, Any] | None, *files: OnnxFile) -> None:
    """Refuse towers of two models, as far as their notes tell."""
    keys = ("geometry", "scorer", "feature_transforms")
    first, second = ({key: (notes or {}).get(key) for key in keys} for notes in (image, text))
    if first != second:
        raise CheckpointError(
            f"{files[0].path} and {files[1].path}: note different geometries or scorers; expected two towers of one "
            "model, exported together."
        )


def _files(place: str) -> tuple[Path, Path | None]:
    """The files of the image and of the text encoder."""
    first, comma, second = place.partition(",")
    folder = Path(first)
    if not folder.is_dir():
        return folder, Path(second) if comma else None
    there = [folder / name for name in IMAGE_FILES if (folder / name).is_file()]
    if not there or comma:
        raise CheckpointError(
            f"onnx:{place}: expected a file, two files with a comma between them, or a folder with "
            f"{' or '.join(IMAGE_FILES)} and perhaps {TEXT_FILE}."
        )
    text = folder / TEXT_FILE
    return there[0], text if text.is_file() else None


def _tokenizer_files(text_path: Path | None) -> list[Path]:
    names = ("tokenizer.json", "tokenizer_config.json")
    return (
        [] if text_path is None else [path for name in names if (path := text_path.parent / name).is_file()]
    )
