"""What a viewer shows of a model: images and captions as rows, with places in the Poincare disk, radii, neighbours."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import hypvl
from hypvl.checks import one_of, whole_number
from hypvl.datasets.protocol import ImageSource
from hypvl.diagnostics.plane import Plane, project
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel, Modality, check_embeddings, evaluating
from hypvl.errors import DataError
from hypvl.geometry.base import Geometry
from hypvl.geometry.lorentz import time_component
from hypvl.io.images import to_pil

_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Row:
    """An image, or the caption of one."""

    id: str
    modality: Modality
    image: int  # position of its image in ``View.images``
    caption: str  # its own, or that of the image; may be empty
    label: str  # empty = none
    x: float  # in the Poincare disk (or the plane, see ``View.about``)
    y: float
    radius: float | None  # distance to the root; None where the space has none
    neighbours: list[int]  # positions of the nearest other rows, nearest first
    distances: list[float]  # to them

    def __post_init__(self) -> None:
        one_of("modality", self.modality, Modality)


@dataclass(frozen=True)
class View:
    """N rows, their embeddings, and the images as JPEG files."""

    rows: list[Row]
    images: list[bytes]
    image_names: list[str]  # of each image
    embeddings: Tensor  # (N, D)
    points: Tensor | None  # (N, D + 1) on the hyperboloid, time first; None where the space is not one
    about: dict[str, Any]  # geometry, curvature, projection; JSON-serialisable


def build_view(
    encoder: CachedEncoder,
    images: ImageSource,
    *,
    names: Sequence[str],
    transform: Callable[[Tensor], Tensor],
    captions: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    neighbours: int = 10,
    pixels: int = 256,
) -> View:
    """Encode images, and captions where there are some, and place them.

    Args:
        encoder: Of the model.
        images: N of them; those that cannot be read are left out.
        names: Of the images.
        transform: Of images, to the model's size.
        captions: One of each image; None = rows of images alone.
        labels: Of each image; None = none.
        neighbours: How many each row has, by the geometry's distance, images and captions alike.
        pixels: Longer side of the images in the view, which are as the model decodes them.

    Raises:
        DataError: when fewer than two images can be read.
        ValueError: for lists of other lengths than N.
    """
    whole_number("neighbours", neighbours, least=1)
    whole_number("pixels", pixels, least=1)
    for name, values in (("names", names), ("captions", captions), ("labels", labels)):
        if values is not None and len(values) != len(images):
            raise ValueError(f"{name}: got {len(values)} for {len(images)} images; expected one each.")
    encoded = encoder.encode_images(images, transform=transform)
    kept = encoded.indices.tolist()
    if len(kept) < 2:
        raise DataError(f"{len(kept)} images can be read; expected at least 2 to look at.")
    blocks = [encoded.embeddings]
    if captions is not None:
        blocks.append(encoder.encode_texts([captions[i] for i in kept], label="captions"))
    embeddings = torch.cat(blocks)  # (N or 2 N, D)
    check_embeddings(embeddings)
    with evaluating(encoder.model) as device:
        geometry = encoder.model.geometry
        rows = embeddings.to(device)
        plane = project(geometry, rows)
        nearest, distances = _nearest(geometry, rows, count=neighbours)
        xy = disk(geometry, plane).tolist()
        radius = _radius(geometry, rows)
        points = _hyperboloid(geometry, rows)
    made = [
        Row(
            id=f"{name}#caption" if row >= len(kept) else str(name),
            modality="text" if row >= len(kept) else "image",
            image=row % len(kept),
            caption="" if captions is None else captions[i],
            label="" if labels is None else labels[i],
            x=xy[row][0],
            y=xy[row][1],
            radius=None if radius is None else radius[row],
            neighbours=nearest[row],
            distances=distances[row],
        )
        for row, i in enumerate(kept * len(blocks))
        for name in (names[i],)
    ]
    return View(
        rows=made,
        images=[_jpeg(images[i], side=pixels) for i in kept],
        image_names=[str(names[i]) for i in kept],
        embeddings=embeddings,
        points=points,
        about=_about(encoder.model, plane),
    )


def disk(geometry: Geometry, plane: Plane) -> Tensor:
    """Points of a plane as a viewer draws them, (N, 2): in the Poincare disk of one hyperbolic space, else flat.

    A point at the distance r from the root lies at tanh(sqrt(c) r / 2) from the centre of the disk.
    """
    curv = geometry.curvature
    if curv is None or curv.numel() != 1:
        return plane.points
    length = torch.linalg.vector_norm(plane.points, dim=-1, keepdim=True)
    scaled = torch.tanh(float(curv) ** 0.5 * length / 2)
    return torch.where(length > 0, plane.points / length.clamp(min=1e-300) * scaled, plane.points)


def _nearest(geometry: Geometry, rows: Tensor, *, count: int) -> tuple[list[list[int]], list[list[float]]]:
    """The nearest other rows of each, and their distances."""
    count = min(count, len(rows) - 1)
    found: list[list[int]] = []
    far: list[list[float]] = []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        block = geometry.pairwise_distance(rows[start : start + _ROWS_AT_ONCE], rows)  # (n, N)
        own = torch.arange(len(block), device=block.device)
        block[own, own + start] = torch.inf
        distances, order = block.sort(dim=1, stable=True)
        found += order[:, :count].tolist()
        far += distances[:, :count].tolist()
    return found, far


def _radius(geometry: Geometry, rows: Tensor) -> list[float] | None:
    if geometry.root(rows.shape[-1]) is None:
        return None
    lengths: list[float] = torch.linalg.vector_norm(geometry.flatten(rows), dim=-1).tolist()
    return lengths


def _hyperboloid(geometry: Geometry, rows: Tensor) -> Tensor | None:
    curv = geometry.curvature
    if curv is None or curv.numel() != 1:
        return None
    space = geometry.space_components(rows)
    return torch.cat((time_component(space, curv=curv), space), dim=-1).cpu()


def _jpeg(image: Tensor, *, side: int) -> bytes:
    picture = to_pil(image)
    picture.thumbnail((side, side))
    content = io.BytesIO()
    picture.save(content, format="JPEG", quality=85)
    return content.getvalue()


def _about(model: EvaluableModel, plane: Plane) -> dict[str, Any]:
    curv = model.geometry.curvature
    one = curv is not None and curv.numel() == 1
    return {
        "hypvl_version": hypvl.__version__,
        "geometry": type(model.geometry).__name__,
        "curvature": None if curv is None else [-float(c) for c in curv],
        "x, y": "Poincare disk" if one else "plane of flat coordinates",
        "projection": plane.method,
        "centre": plane.centre,
        "variance_kept": plane.variance_kept,
    }
