"""Write embeddings of shards: python scripts/extract_embeddings.py --shards X.tar --checkpoint-path X.pth ..."""

from hypvl.cli.common import run_main
from hypvl.cli.extract_embeddings import main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
