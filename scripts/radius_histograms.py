"""Compare radii: python scripts/radius_histograms.py --inputs photos captions.txt --checkpoint-path X.pth"""

import sys

from hypvl.cli.radius_histograms import run

if __name__ == "__main__":
    sys.exit(run())
