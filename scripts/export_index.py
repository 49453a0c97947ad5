"""Vectors for search: python scripts/export_index.py --embeddings D --modality image --checkpoint-path X.pth ..."""

import sys

from hypvl.cli.export_index import run

if __name__ == "__main__":
    sys.exit(run())
