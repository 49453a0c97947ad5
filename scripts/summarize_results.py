"""One table over many results: python scripts/summarize_results.py output"""

from hypvl.cli.common import run_main
from hypvl.cli.summarize_results import main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
