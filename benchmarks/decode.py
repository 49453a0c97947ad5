"""Images per second of one core against PIL's RandomResizedCrop (bicubic) + ToTensor: python -m benchmarks.decode

JPEG images of 400 x 300 pixels, crops of 224. Prints one JSON line:

- throughput_ratio: our whole loader (samples of TAR shards in random order, decoded, cropped, captions tokenized,
  batches of 64, no workers) against torch's over the same images in memory, images alone;
- transform_ratio: decoding and cropping alone on both sides.

Times are of the processor, so that they are those of one core.
"""

import argparse
import io
import itertools
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.common import count, paired, report
from benchmarks.tokenizer import corpus
from hypvl.data.loader import Loader
from hypvl.data.mappers import GenericMapper
from hypvl.data.shards import ImageTextShards
from hypvl.data.tokenizer import get_tokenizer
from hypvl.data.transforms import RandomResizedCrop
from hypvl.io.images import decode_image

SIZE, SCALE, BATCH = 224, (0.5, 1.0), 64


def jpeg_images(count: int, width: int, height: int) -> list[bytes]:
    """Smooth images with some noise, as JPEG."""
    out = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        small = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
        pixels = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = np.clip(pixels + rng.integers(-12, 13, pixels.shape), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noisy).save(buffer, "JPEG", quality=90)
        out.append(buffer.getvalue())
    return out


def write_shards(folder: Path, files: Sequence[bytes], *, each: int = 100) -> None:
    """Images with captions as TAR shards."""
    texts = corpus(len(files), len(files))
    for start in range(0, len(files), each):
        with tarfile.open(folder / f"{start:06d}.tar", "w") as shard:
            for i in range(start, min(start + each, len(files))):
                for name, data in ((f"{i:06d}.jpg", files[i]), (f"{i:06d}.txt", texts[i].encode())):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    shard.addfile(info, io.BytesIO(data))


def our_loader(folder: Path, *, batch: int) -> Loader:
    """As training reads shards."""
    dataset = ImageTextShards(
        tarfiles=[str(folder / "*.tar")],
        mapper=GenericMapper(),
        image_transform=RandomResizedCrop(SIZE, scale=SCALE),
        tokenizer=get_tokenizer(),
    )
    return Loader(dataset, global_batch_size=batch, rank=0, world_size=1, num_workers=0, seed=0)


class PilImages(Dataset[Tensor]):
    """What torchvision's documentation shows."""

    def __init__(self, files: Sequence[bytes]) -> None:
        self.files = files
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(
                    SIZE, scale=SCALE, interpolation=transforms.InterpolationMode.BICUBIC
                ),
                transforms.ToTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        image: Tensor = self.transform(Image.open(io.BytesIO(self.files[index])).convert("RGB"))
        return image


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=count, default=256)
    parser.add_argument("--repeats", type=count, default=5)
    parser.add_argument("--json", action="store_true", help="the JSON line is what is always printed")
    args = parser.parse_args(argv)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    files = jpeg_images(args.images, 400, 300)
    batch = min(BATCH, args.images)
    batches = args.images // batch
    theirs = PilImages(files)
    crop, generator = RandomResizedCrop(SIZE, scale=SCALE), torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder), files)
        mine = iter(our_loader(Path(folder), batch=batch))
        shape = tuple(next(mine)["image"].shape)  # indexes the shards, which is done once
        other = DataLoader(theirs, batch_size=batch, shuffle=True, drop_last=True)
        their_shape = tuple(next(iter(other)).shape)
        whole = paired(
            lambda: [None for _ in itertools.islice(mine, batches)],
            lambda: [None for _ in other],
            repeats=args.repeats,
        )
        alone = paired(
            lambda: [crop(decode_image(data), generator) for data in files],
            lambda: [theirs[i] for i in range(len(files))],
            repeats=args.repeats,
        )
    figures = {
        **whole,
        "images_per_second": batches * batch / whole["ours_seconds"],
        "transform_ratio": alone["throughput_ratio"],
        "images": args.images,
        "equal_shapes": shape == their_shape,
    }
    report("decode", figures)
    torch.set_num_threads(threads)


if __name__ == "__main__":
    main()
