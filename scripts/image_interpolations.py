"""Between two images: python scripts/image_interpolations.py --image-path A --target-image-path B --pool photos"""

import sys

from hypvl.cli.image_interpolations import run

if __name__ == "__main__":
    sys.exit(run())
