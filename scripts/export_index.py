"""Vectors for search: python scripts/export_index.py --embeddings D --modality image --checkpoint-path X.pth ..."""

from hypvl.cli.common import run_main
from hypvl.cli.export_index import main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
