"""Write embeddings of shards: python scripts/extract_embeddings.py --shards X.tar --checkpoint-path X.pth ..."""

import sys

from hypvl.cli.extract_embeddings import run

if __name__ == "__main__":
    sys.exit(run())
