"""Encoders in ONNX files, run by onnxruntime; the extra ``onnx``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hypvl.checks import one_of
from hypvl.data.tokenizer import get_tokenizer
from hypvl.data.tokenizer_huggingface import HuggingFaceTokenizer
from hypvl.data.transforms import Interpolation, ResizeMode
from hypvl.encoders.image_base import ImageEncoder
from hypvl.errors import CheckpointError, UserError

_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_CLIP_LENGTH = 77
#: How the name of an output ends that holds points of a hyperboloid, time first.
HYPERBOLOID = "hyperboloid"
#: The output of a tower that ``hypvl export`` wrote, before the lifting; the file's metadata has the geometry.
FEATURES = "features"


class Slot(NamedTuple):
    """An input or output: its name, shape (whole numbers, or names and None of what is free), and type."""

    name: str
    shape: tuple[Any, ...]
    kind: str

    def side(self, axis: int) -> int | None:
        """Length of an axis; None where it is free."""
        length = self.shape[axis]
        return length if isinstance(length, int) and length > 0 else None

    def __str__(self) -> str:
        return f"{self.name} {self.kind.removeprefix('tensor(').rstrip(')')} {list(self.shape)}"


def require_onnxruntime() -> Any:
    """The package ``onnxruntime``, imported here for the first time; UserError where it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            "ONNX files need onnxruntime, which is not installed: pip install 'hypvl[onnx]'."
        ) from error
    return onnxruntime


class OnnxFile:
    """A network in an ONNX file.

    Args:
        path: The file; weights beside it (``<name>.data``) are found by onnxruntime.
        device: "cuda" asks for a GPU, where this onnxruntime can use one.

    Raises:
        UserError: when onnxruntime is not installed.
        CheckpointError: when it cannot be read, or its weights beside it are missing.
    """

    def __init__(self, path: Path, *, device: str | torch.device = "cpu") -> None:
        runtime = require_onnxruntime()
        self.path = path
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file; expected one in the ONNX format.")
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors, which are raised as well
        wanted = ["CPUExecutionProvider"]
        if (
            torch.device(device).type == "cuda"
            and "CUDAExecutionProvider" in runtime.get_available_providers()
        ):
            wanted.insert(0, "CUDAExecutionProvider")
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=wanted)
        except Exception as error:  # its own classes, which derive from Exception alone
            reason = " ".join(str(error).split())[:240]
            raise CheckpointError(
                f"{path}: onnxruntime cannot read it ({reason}); expected an ONNX file, with its weights beside it "
                f"({path.name}.data) where it has them apart."
            ) from error
        self.inputs = [Slot(slot.name, tuple(slot.shape), slot.type) for slot in self._session.get_inputs()]
        self.outputs = [Slot(slot.name, tuple(slot.shape), slot.type) for slot in self._session.get_outputs()]
        self.notes = dict(self._session.get_modelmeta().custom_metadata_map)

    def output(self) -> Slot:
        """The output with the embeddings: that of a hyperboloid, else ``features``, else the only one of two axes.

        Raises:
            CheckpointError: when there is none, or several.
        """
        points = [slot for slot in self.outputs if slot.name.endswith(HYPERBOLOID)]
        own = [slot for slot in self.outputs if slot.name == FEATURES and len(slot.shape) == 2]
        flat = points or own or [slot for slot in self.outputs if len(slot.shape) == 2]
        if len(flat) != 1:
            raise CheckpointError(
                f"{self.path}: outputs {', '.join(map(str, self.outputs))}; expected one (B, D), or one whose name "
                f"ends with {HYPERBOLOID}, (B, D + 1) with the time component first."
            )
        return flat[0]

    def run(self, output: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """One output of a batch; a file of a fixed batch size gets blocks of that size, the last one filled up."""
        count = len(next(iter(inputs.values())))
        fixed = self.inputs[0].side(0)
        if fixed is None:
            result: np.ndarray = self._session.run([output], inputs)[0]
            return result
        blocks = []
        for start in range(0, count, fixed):
            rows = np.minimum(np.arange(start, start + fixed), count - 1)  # the last row again
            block = self._session.run([output], {name: array[rows] for name, array in inputs.items()})[0]
            blocks.append(block[: count - start])
        return np.concatenate(blocks)


class OnnxImageEncoder(ImageEncoder):
    """An image encoder that takes pixels in [0, 1] and normalises them itself: (B, 3, S, S) -> (B, width).

    Args:
        file: Its only input is an image, (B, 3, S, S) float; its output as :meth:`OnnxFile.output` says.
        digest: SHA-256 of the file, which tells models apart.

    Raises:
        CheckpointError: for other inputs.
    """

    def __init__(self, file: OnnxFile, *, digest: str) -> None:
        if len(file.inputs) != 1 or len(file.inputs[0].shape) != 4 or file.inputs[0].kind not in _FLOATS:
            raise CheckpointError(
                f"{file.path}: inputs {', '.join(map(str, file.inputs))}; expected one, an image float [B, 3, S, S] of "
                "pixels in [0, 1]."
            )
        slot = file.inputs[0]
        if slot.name == "pixel_values":  # as exports of transformers call theirs
            raise CheckpointError(
                f"{file.path}: its input pixel_values is an image that is normalised already, by a mean and a "
                "deviation that the file does not say; evaluate the model by hf:, or export it with its normalisation "
                "inside."
            )
        size, width = slot.side(2), slot.side(3)
        if size is None or size != width or slot.side(1) != 3:
            raise CheckpointError(
                f"{file.path}: input {slot}; expected 3 channels and a square of fixed size, [B, 3, S, S]."
            )
        super().__init__(size, pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3, fixed_size=True)
        self.digest = digest
        self._file, self._slot, self._output = file, slot, file.output()
        self.width = int(self.encode(torch.zeros(1, 3, size, size)).shape[1])

    def resize_as(self, interpolation: Interpolation, resize_mode: ResizeMode) -> None:
        """How images are resized for the file, where that is known; ValueError for other words."""
        self.interpolation = one_of("interpolation", interpolation, Interpolation)
        self.resize_mode = one_of("resize_mode", resize_mode, ResizeMode)

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1] (B, 3, S, S) -> the output of the file (B, width)."""
        array = pixels.detach().cpu().numpy().astype(_FLOATS[self._slot.kind])
        return _to_torch(self._file.run(self._output.name, {self._slot.name: array}), pixels.device)


class OnnxTextEncoder(nn.Module):
    """A text encoder that takes token ids: (B, L) -> (B, width).

    Args:
        file: Inputs: token ids (B, L) whole numbers, and perhaps a mask of the same shape whose name has "mask" in it.
        tokenizer: Whose ids it takes, of :func:`text_tokenizer`.
        digest: As for :class:`OnnxImageEncoder`.
        fill_id: Id that the file takes in place of padding; None = the tokenizer's id for it, or 0.

    Raises:
        CheckpointError: for other inputs.
    """

    def __init__(self, file: OnnxFile, *, tokenizer: Any, digest: str, fill_id: int | None = None) -> None:
        super().__init__()
        self._ids, self._mask = _text_slots(file)
        self.full_rows = self._ids.side(1) is not None
        self.context_length = int(tokenizer.context_length)
        self.pad_token = int(tokenizer.pad_token)
        self.fill_id = _fill_id(tokenizer) if fill_id is None else fill_id
        self.tokenizer = tokenizer
        self.vocabulary = tokenizer.vocabulary
        self.digest = digest
        self._file, self._output = file, file.output()
        # Where the file does not say it, by one short text; some take none so short (prompts).
        probe = torch.full((1, 2), max(0, self.fill_id))
        self.width = self._output.side(1) or int(self(probe).shape[1])

    def forward(self, tokens: Tensor, lengths: Sequence[int] | np.ndarray | None = None) -> Tensor:
        """Token ids (B, L), int64, L at most ``context_length``, padded at the end -> (B, width).

        ``lengths`` are ignored. ValueError for texts that are too long.
        """
        if tokens.shape[1] > self.context_length:
            raise ValueError(
                f"tokens are {tokens.shape[1]} long, but the context length is {self.context_length}: truncate them."
            )
        if self.full_rows:
            free = self.context_length - tokens.shape[1]
            tokens = nn.functional.pad(tokens, (0, free), value=self.pad_token)
        places = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
        ends = torch.where(tokens != self.pad_token, places, 0).amax(dim=1)
        mask = (places <= ends[:, None]).cpu().numpy()
        ids = tokens.detach().cpu().numpy()
        inputs = {self._ids.name: np.where(mask, ids, self.fill_id).astype(_INTEGERS[self._ids.kind])}
        if self._mask is not None:
            inputs[self._mask.name] = mask.astype(_INTEGERS[self._mask.kind])
        return _to_torch(self._file.run(self._output.name, inputs), tokens.device)


def _text_slots(file: OnnxFile) -> tuple[Slot, Slot | None]:
    """The inputs of ids and of the mask."""
    masks = [slot for slot in file.inputs if "mask" in slot.name]
    ids = [slot for slot in file.inputs if slot not in masks]
    fit = all(len(slot.shape) == 2 and slot.kind in _INTEGERS for slot in file.inputs)
    if len(ids) != 1 or len(masks) > 1 or not fit:
        raise CheckpointError(
            f"{file.path}: inputs {', '.join(map(str, file.inputs))}; expected token ids int64 [B, L], and perhaps a "
            "mask of them."
        )
    return ids[0], masks[0] if masks else None


def text_length(file: OnnxFile) -> int | None:
    """Tokens of each text that a file of a text encoder takes; None = any number. CheckpointError for other inputs."""
    return _text_slots(file)[0].side(1)


def text_tokenizer(folder: Path, *, context_length: int | None, template: str | None = None) -> Any:
    """The tokenizer of transformers whose ``tokenizer.json`` lies in the folder, else CLIP's; None = 77 tokens."""
    length = _CLIP_LENGTH if context_length is None else context_length
    if (folder / "tokenizer.json").is_file():
        return HuggingFaceTokenizer(str(folder), length, template=template)
    return get_tokenizer(length)


def _fill_id(tokenizer: Any) -> int:
    """The id that the network gets in place of padding."""
    if tokenizer.pad_token >= 0:
        return int(tokenizer.pad_token)
    own = tokenizer.tokenizer.pad_token_id
    return 0 if own is None else int(own)


def _to_torch(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).to(device)
