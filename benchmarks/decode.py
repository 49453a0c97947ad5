"""Images per second of decoding and cropping against PIL, on one core: python -m benchmarks.decode"""

import argparse
import io

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from benchmarks.common import paired, report


def pictures(count: int, width: int, height: int) -> list[bytes]:
    """Smooth pictures with some noise, as JPEG."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    from hypvl.data.transforms import RandomResizedCrop, decode_image

    files = pictures(args.images, 400, 300)
    ours = RandomResizedCrop(224, scale=(0.5, 1.0))
    generator = torch.Generator().manual_seed(0)
    theirs = transforms.Compose(
        [
            transforms.RandomResizedCrop(
                224, scale=(0.5, 1.0), interpolation=transforms.InterpolationMode.BICUBIC
            ),
            transforms.ToTensor(),
        ]
    )
    figures = paired(
        lambda: [ours(decode_image(data), generator) for data in files],
        lambda: [theirs(Image.open(io.BytesIO(data)).convert("RGB")) for data in files],
        repeats=args.repeats,
    )
    figures["images_per_second"] = args.images / figures["ours_seconds"]
    report("decode", figures)


if __name__ == "__main__":
    main()
