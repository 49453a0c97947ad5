"""List the recipes: python scripts/recipes.py meru"""

from hypvl.cli.common import run_main
from hypvl.cli.recipes import main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
