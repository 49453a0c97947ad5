"""Time and memory of the K-Means of an episode of ProtoCLIP: python -m benchmarks.kmeans [--rows 20000,40000]

Unit rows of random directions, a tenth as many clusters as rows, 20 iterations, as hypvl/training/hooks/episodes.py
divides them on one process. Lloyd's iteration costs rows x clusters x features, so that ten times the rows of a line
take a hundred times its time. Prints one JSON line.
"""

import argparse
import resource
import time
from collections.abc import Sequence

import torch

from benchmarks.common import report
from hypvl.geometry.sphere import normalize
from hypvl.training.hooks.episodes import kmeans_labels

FEATURES, ITERATIONS, SHARE = 128, 20, 10


def measure(rows: int) -> dict[str, float]:
    """Processor seconds, and the peak of memory of this process, of one clustering."""
    points = normalize(torch.randn(rows, FEATURES, generator=torch.Generator().manual_seed(0)))
    before = time.process_time()
    labels = kmeans_labels(points, count=rows // SHARE, iterations=ITERATIONS, seed=0)
    seconds = time.process_time() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = len(labels.unique())
    return {"rows": rows, "clusters": found, "processor_seconds": round(seconds, 2), "peak_mib": round(peak)}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default="20000,40000", help="with commas (default: 20000,40000)")
    args = parser.parse_args(argv)
    report("kmeans", {"lines": [measure(int(rows)) for rows in args.rows.split(",")]})


if __name__ == "__main__":
    main()
