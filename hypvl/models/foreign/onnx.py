"""Models in ONNX files: an image encoder alone, as hyper-models publishes them, or with a text encoder beside it."""

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from hypvl.encoders.mlp_heads import IdentityHead
from hypvl.encoders.onnx_towers import (
    HYPERBOLOID,
    OnnxFile,
    OnnxImageEncoder,
    OnnxTextEncoder,
    require_onnxruntime,
    text_length,
    text_tokenizer,
)
from hypvl.errors import CheckpointError
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scorers import Cosine, NegativeDistance
from hypvl.geometry.sphere import Sphere
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.foreign.record import ForeignModel, about

IMAGE_FILES, TEXT_FILE = ("image.onnx", "model.onnx"), "text.onnx"
_DATA = (".data", "_data")  # endings of the weights beside a file
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
    textual = None
    if text_file is not None:
        tokenizer = text_tokenizer(text_file.path.parent, context_length=text_length(text_file))
        textual = OnnxTextEncoder(text_file, tokenizer=tokenizer, digest=digest)
        _check_pair(image_file, text_file, visual.width, textual.width)
    points = image_file.output().name.endswith(HYPERBOLOID)
    model = _hyperbolic(visual, textual, image_file) if points else _flat(visual, textual)
    return ForeignModel(model, record)


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
