"""Start a recipe of your own: python scripts/new.py my_recipe --from meru_vit_b"""

from hypvl.cli.common import run_main
from hypvl.cli.new import main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
