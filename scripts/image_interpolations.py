"""Between two images: python scripts/image_interpolations.py --image-path A --target-image-path B --pool photos"""

from hypvl.cli.common import run_main
from hypvl.cli.image_interpolations import main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
