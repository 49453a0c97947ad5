"""``python -m hypvl``: the command line of hypvl."""

import sys

from hypvl.cli.registry import run

if __name__ == "__main__":
    sys.exit(run())
