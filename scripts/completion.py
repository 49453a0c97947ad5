"""Completion in the shell: python scripts/completion.py bash"""

from hypvl.cli.common import run_main
from hypvl.cli.completion import main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
