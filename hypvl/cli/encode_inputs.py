"""A loaded model that encodes a user's images and texts, for the commands that rank and compare them."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypvl.checks import count_of
from hypvl.cli.common import CommandParser, show, user_path
from hypvl.errors import DataError
from hypvl.io.files import write_output
from hypvl.io.json_text import json_bytes

if TYPE_CHECKING:
    from torch import Tensor

    from hypvl.embedding.encode import CachedEncoder
    from hypvl.embedding.protocol import Modality
    from hypvl.models.dual_encoder import DualEncoder

INPUT_HELP = "a folder of images, or a file of texts: .txt with one a line, .jsonl, .csv, .tsv"
ROOTS = {
    "geometry": "the root of the space",
    "checkpoint": "the mean training embedding stored in the checkpoint",
    "items": "the mean of all embeddings here, because the checkpoint stores no root",
}


def add_loaded_model_arguments(parser: CommandParser, *, output_dir: str) -> None:
    """Model, encoding and place of the results."""
    parser.add_model_arguments()
    parser.add_embeddings_arguments()
    parser.add_argument(
        "--text-key", default="caption", metavar="KEY", help="key or column of texts in a file"
    )
    parser.add_encoding_arguments()
    parser.add_argument(
        "--output-dir", type=user_path, default=Path(output_dir), metavar="DIR",
        help="folder of the JSON and the image",
    )  # fmt: skip


def show_unreadable(encoder: "CachedEncoder") -> None:
    """Say on stderr how many images were left out because they cannot be read, and why the first; nothing for none."""
    if encoder.unreadable:
        count, (_, reason) = len(encoder.unreadable), encoder.unreadable[0]
        show(f"left out {count_of(count, 'image')} that cannot be read; the first: {reason}", file=sys.stderr)


@dataclass(frozen=True)
class Items:
    """Images or texts and their embeddings."""

    modality: "Modality"
    names: list[str]  # paths below the folder, or the texts
    paths: list[Path] | None  # of images
    embeddings: "Tensor"  # (N, D), on the CPU
    unreadable: int = 0  # images that are left out

    def numbers(self) -> list[str]:
        """Positions as names: unlike names they are different, and lead back to the paths."""
        return [str(i) for i in range(len(self.names))]


@dataclass(frozen=True)
class LoadedModel:
    """A model, how it encodes, and what its checkpoint says."""

    model: "DualEncoder"  # in evaluation mode
    encoder: "CachedEncoder"
    root: "Tensor | None"  # stored in the checkpoint, (D,)
    about: dict[str, Any]  # which model and hypvl, for the result file
    text_key: str

    @classmethod
    def of(cls, args: argparse.Namespace) -> "LoadedModel":
        """From the flags of :func:`add_loaded_model_arguments`. Raises UserError."""
        from hypvl.cli import loading
        from hypvl.embedding.encode import CachedEncoder

        device = loading.pick_device(args.device)
        model, content = loading.load_chosen(args, device=device)
        store = loading.open_store(args, model)
        encoder = CachedEncoder(model, encoding=loading.encoding_of(args), store=store)
        root = loading.stored_root(content, args.checkpoint_path, embed_dim=model.embed_dim)
        return cls(model, encoder, root, loading.about_model(args, content), args.text_key)

    def items(self, path: Path) -> Items:
        """The images below a folder, or the texts of a file. Raises DataError."""
        from hypvl.datasets.user_inputs import image_paths, text_file

        if path.is_dir():
            paths = image_paths(path)
            return self.pil_images(
                paths, names=[file.relative_to(path).as_posix() for file in paths], label=path.name
            )
        return self.texts(list(text_file(path, text_key=self.text_key).texts), label=path.name)

    def pil_images(self, paths: list[Path], *, names: list[str], label: str) -> Items:
        """Encode image files. Raises DataError."""
        from hypvl.data.transforms import ResizeCenterCrop
        from hypvl.datasets.images import Images

        transform = ResizeCenterCrop.of(self.model)
        result = self.encoder.encode_images(Images.from_files(paths), transform=transform, label=label)
        readable = result.indices.tolist()
        return Items(
            "image",
            [names[i] for i in readable],
            [paths[i] for i in readable],
            result.embeddings,
            len(result.bad),
        )

    def image(self, path: Path) -> "Tensor":
        """Embedding of one image, (D,). Raises DataError."""
        from hypvl.datasets.images import read_image

        read_image(path)  # with its own message
        return self.pil_images([path], names=[path.name], label=path.name).embeddings[0]

    def texts(self, texts: list[str], *, label: str) -> Items:
        """Encode texts."""
        return Items("text", texts, None, self.encoder.encode_texts(texts, label=label))

    def root_of(self, embeddings: "Tensor") -> tuple["Tensor", str]:
        """The root (D,) and a key of :data:`ROOTS`: the geometry's, the checkpoint's, or the mean of these (N, D)."""
        from hypvl.evaluation.traversal import find_root

        stored = None if self.root is None else self.root.to(embeddings)
        root, source = find_root(self.model.geometry, embeddings, stored=stored)
        return root, "items" if source == "text pool" else source


def present(
    result: Mapping[str, Any],
    file: Path,
    *,
    draw: Callable[[Path, Path], Path],
    rows: Sequence[Sequence[str]],
    header: Sequence[str],
    title: str,
    notes: Sequence[str] = (),
) -> None:
    """Write ``result`` into the JSON ``file``, draw the figure beside it, and print a table, notes, and both places.

    ``draw`` makes the figure (second argument) from the JSON (first).
    """
    from hypvl.report.tables import print_table, rich_table

    write_output(file, json_bytes(result, indent=1), flag="--output-dir")
    image = draw(file, file.with_suffix(".png"))
    print_table(rich_table(rows, header=header, title=title, text_columns=1))
    show(*notes, f"The root is {ROOTS[result['root']]}.", file, image)


def free_of(path: Path, *inputs: Path) -> None:
    """Raises DataError when a result would overwrite an input."""
    if path.resolve() in [file.resolve() for file in inputs]:
        raise DataError(f"{path}: would overwrite an input; name another --output-dir.")
