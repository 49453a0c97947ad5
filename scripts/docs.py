"""List the pages of the documentation: python scripts/docs.py"""

from hypvl.cli.common import run_main
from hypvl.cli.docs import main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
