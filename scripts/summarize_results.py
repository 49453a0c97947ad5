"""One table over many results: python scripts/summarize_results.py output"""

import sys

from hypvl.cli.summarize_results import run

if __name__ == "__main__":
    sys.exit(run())
