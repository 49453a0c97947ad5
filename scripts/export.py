"""Models and embeddings for other programs: python scripts/export.py --to onnx --checkpoint-path X --output D ..."""

from hypvl.cli.common import run_main
from hypvl.cli.export import main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
