"""Zero-shot retrieval against one image and one caption at a time: python -m benchmarks.retrieval

- throughput_ratio: the whole evaluator on JPEG images of 400 x 300 with 5 captions each (about 12 ids), in one
  process, against a loop that opens each image with PIL, encodes it alone, encodes each caption alone (open_clip's
  tokenizer, 77 ids), and sorts all scores of each query. --model demo is the recipe of configs/train_meru_demo.py
  (64 px), vit_s that of configs/train_meru_vit_s.py (224 px), both with random weights. --num-workers gives ours
  processes for reading.
- ranking_ratio: the ranking alone, of given embeddings (D = 512): both directions with 100 kept of each query against
  the whole score matrices and a full argsort for each query.
- --large N: N x N scores (D = 512) by themselves, in a process of its own: its extra peak memory and seconds. The
  allocator of that process returns every freed block of 64 KiB or more to the system, so that the peak is of live
  tensors and not of fragments of the heap (half as much again, and another figure each time); the seconds include it.

Medians over runs in turn, on the wall; prints one JSON line.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from benchmarks.common import count, report
from benchmarks.decode import jpeg_images
from hypvl.config import LazyConfig, instantiate
from hypvl.datasets.retrieval.table import table
from hypvl.embedding.encode import Encoding
from hypvl.embedding.search import search_both_ways
from hypvl.evaluation.retrieval import ZeroShotRetrieval
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scorers import NegativeDistance
from hypvl.models.dual_encoder import DualEncoder

KS = (1, 5, 10)
CAPTIONS = 5
DEPTH = 100
ROOT = Path(__file__).resolve().parents[1]
_NOUNS = (
    "dog", "cat", "man", "woman", "child", "horse", "bicycle", "car", "bus", "train", "table", "chair", "bird",
    "house", "tree", "boat", "sheep", "bench", "kitchen", "beach", "field", "street", "window", "river",
)  # fmt: skip
_ADJECTIVES = (
    "red",
    "small",
    "large",
    "old",
    "young",
    "white",
    "black",
    "wooden",
    "brown",
    "green",
    "wet",
    "happy",
)
_VERBS = ("sitting", "standing", "running", "waiting", "sleeping", "playing", "moving", "resting")
_PLACES = ("near", "on top of", "next to", "behind", "in front of", "under")


class Given(nn.Module):
    """What search needs of a model, for embeddings that are already there."""

    def __init__(self) -> None:
        super().__init__()
        self.geometry, self.scorer = Lorentz(), NegativeDistance()

    def scores(self, query: Tensor, key: Tensor, **modalities: Any) -> Tensor:
        return self.scorer.scores(self.geometry, query, key, **modalities)


def recipe(name: str) -> DualEncoder:
    """A recipe's model with random weights, the same each time."""
    torch.manual_seed(0)
    config = LazyConfig.load(ROOT / "configs" / f"train_meru_{name}.py")
    model: DualEncoder = instantiate(config.model)
    return model.eval()


def captions(count: int) -> list[str]:
    """Different captions of 7 to 12 words, none rare."""
    draws = np.random.default_rng(0)
    found: dict[str, None] = {}
    while len(found) < count:
        noun, other, place = draws.choice(_NOUNS, 3, replace=False)
        text = (
            f"a {draws.choice(_ADJECTIVES)} {noun} {draws.choice(_VERBS)} {draws.choice(_PLACES)} a {place}"
        )
        ends = ("", f" and a {other}", f" with a {draws.choice(_ADJECTIVES)} {other}")
        found[text + ends[draws.integers(3)]] = None
    return list(found)


def write_set(folder: Path, count: int) -> Path:
    """Images of 400 x 300 pixels and captions of about 10 words; gives the list's path."""
    texts = captions(CAPTIONS * count)
    lines = []
    for i, data in enumerate(jpeg_images(count, 400, 300)):
        (folder / f"{i}.jpg").write_bytes(data)
        lines.append(json.dumps({"image": f"{i}.jpg", "captions": texts[CAPTIONS * i : CAPTIONS * (i + 1)]}))
    (folder / "set.jsonl").write_text("\n".join(lines))
    return folder / "set.jsonl"


def ours(model: DualEncoder, listed: Path, *, num_workers: int) -> dict[str, float]:
    encoding = Encoding(batch_size=32, num_workers=num_workers, progress=False)
    return ZeroShotRetrieval(table(listed), ks=KS, encoding=encoding)(model).metrics


@torch.inference_mode()
def plain(model: DualEncoder, listed: Path) -> dict[str, float]:
    """Recalls as a straightforward script gets them."""
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    squeeze = transforms.Compose(
        [
            transforms.Resize(
                (model.image_size, model.image_size), interpolation=transforms.InterpolationMode.BICUBIC
            ),
            transforms.ToTensor(),
        ]
    )
    images, texts, owners = [], [], []
    for i, line in enumerate(listed.read_text().splitlines()):
        entry = json.loads(line)
        with Image.open(listed.parent / entry["image"]) as image:
            pixels = squeeze(image.convert("RGB"))
        images.append(model.encode_image(pixels[None]))
        for caption in entry["captions"]:
            texts.append(model.encode_text(tokenizer([caption])))
            owners.append(i)
    return rank_plainly(model, torch.cat(texts), torch.cat(images), torch.tensor(owners))


@torch.inference_mode()
def rank_plainly(model: Any, texts: Tensor, images: Tensor, owners: Tensor) -> dict[str, float]:
    """All scores at once, and a full sort for each query."""
    ranks: dict[str, list[int]] = {"text_to_image": [], "image_to_text": []}
    scores = model.scores(texts, images, query_modality="text", key_modality="image")
    for row, owner in zip(scores, owners, strict=True):
        order = row.argsort(descending=True)
        ranks["text_to_image"].append(int((order == owner).nonzero()[0]) + 1)
    scores = model.scores(images, texts, query_modality="image", key_modality="text")
    for i, row in enumerate(scores):
        order = row.argsort(descending=True)
        ranks["image_to_text"].append(int((owners[order] == i).nonzero()[0]) + 1)
    return recalls(ranks)


def recalls(ranks: dict[str, list[int]]) -> dict[str, float]:
    return {
        f"{way}_recall@{k}": 100 * float(np.mean(np.array(found) <= k))
        for way, found in ranks.items()
        for k in KS
    }


def rank_in_blocks(model: Any, texts: Tensor, images: Tensor, owners: Tensor) -> dict[str, float]:
    """As the evaluator ranks."""
    (_, to_images), (_, to_texts) = search_both_ways(
        model, texts, images, k=DEPTH, query_modality="text", key_modality="image"
    )
    beyond = max(len(texts), len(images)) + 1
    hits = {
        "text_to_image": to_images == owners[:, None],
        "image_to_text": owners[to_texts] == torch.arange(len(images))[:, None],
    }
    return recalls({
        way: torch.where(hit.any(1), hit.int().argmax(1) + 1, beyond).tolist() for way, hit in hits.items()
    })  # fmt: skip


def embeddings(count: int, *, seed: int, dim: int = 512) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) / dim**0.5


def in_turn(mine: Callable[[], Any], other: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Median seconds of ours, and of theirs / ours."""
    rounds = []
    for _ in range(repeats):
        times = [time.perf_counter()]
        for function in (mine, other):
            function()
            times.append(time.perf_counter())
        rounds.append((times[1] - times[0], (times[2] - times[1]) / (times[1] - times[0])))
    return statistics.median(a for a, _ in rounds), statistics.median(b for _, b in rounds)


def measure_large(size: str) -> None:
    """Print extra peak memory in MiB, seconds, and whether sampled rows are those of a full sort."""
    model: Any = Given()
    count = int(size)
    texts, images = (embeddings(count, seed=seed) for seed in (0, 1))
    run: dict[str, Any] = {"query_modality": "text", "key_modality": "image"}
    search_both_ways(model, texts[:64], images[:64], k=10, **run)  # what torch loads at first use
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew (Linux)
    before, started = _status("VmRSS"), time.perf_counter()
    (_, to_images), (_, to_texts) = search_both_ways(model, texts, images, k=10, **run)
    seconds, peak = time.perf_counter() - started, _status("VmHWM")
    right = []
    for found, queries, keys in ((to_images, texts, images), (to_texts, images, texts)):
        for row in range(0, count, max(1, count // 20)):
            whole = model.scores(queries[row : row + 1], keys, **run).detach()[0]
            right.append(set(found[row].tolist()) == set(whole.topk(10).indices.tolist()))
    print(json.dumps([(peak - before) / 1024, seconds, float(np.mean(right))]))


def _status(name: str) -> int:
    """A line of /proc/self/status, KiB."""
    (line,) = (text for text in Path("/proc/self/status").read_text().splitlines() if text.startswith(name))
    return int(line.split()[1])


def large(size: int) -> dict[str, float]:
    code = "from benchmarks.retrieval import measure_large as m; import sys; m(sys.argv[1])"
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 16)}  # glibc's; fixed, it does not grow
    command = [sys.executable, "-c", code, str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    memory, seconds, right = json.loads(done.stdout)
    return {"size": size, "extra_memory_mib": memory, "seconds": seconds, "sampled_rows_right": right}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=("demo", "vit_s"), default="demo")
    parser.add_argument("--images", type=count, default=60, help="images of the whole evaluation")
    parser.add_argument(
        "--gallery", type=count, default=1000, help="images of the ranking, with 5 captions each"
    )
    parser.add_argument("--repeats", type=count, default=5)
    parser.add_argument("--num-workers", type=int, default=0)
    parser.add_argument(
        "--large", type=count, metavar="N", help="N x N scores, nothing else; minutes for 100000"
    )
    parser.add_argument("--json", action="store_true", help="the JSON line is what is always printed")
    args = parser.parse_args(argv)
    if args.large is not None:
        report("retrieval_large", large(args.large))
        return
    model = recipe(args.model)
    found: dict[str, Any] = {"model": args.model, "images": args.images, "captions": CAPTIONS * args.images}
    with tempfile.TemporaryDirectory() as folder:
        listed = write_set(Path(folder), args.images)
        mine, other = ours(model, listed, num_workers=args.num_workers), plain(model, listed)
        found["recall_difference"] = max(abs(mine[name] - other[name]) for name in other)
        found["seconds"], found["throughput_ratio"] = in_turn(
            lambda: ours(model, listed, num_workers=args.num_workers),
            lambda: plain(model, listed),
            args.repeats,
        )
    texts, images = embeddings(CAPTIONS * args.gallery, seed=0), embeddings(args.gallery, seed=1)
    owners = torch.arange(len(texts)) // CAPTIONS
    texts = texts + images[owners]  # some way towards their images
    same = rank_in_blocks(Given(), texts, images, owners) == rank_plainly(Given(), texts, images, owners)
    seconds, ratio = in_turn(
        lambda: rank_in_blocks(Given(), texts, images, owners),
        lambda: rank_plainly(Given(), texts, images, owners),
        args.repeats,
    )
    found |= {
        "gallery": len(images), "queries": len(texts), "ranking_seconds": seconds, "ranking_ratio": ratio,
        "ranking_equal": same, "repeats": args.repeats,
    }  # fmt: skip
    report("retrieval", found)


if __name__ == "__main__":
    main()
