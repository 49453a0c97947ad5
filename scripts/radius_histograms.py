"""Compare radii: python scripts/radius_histograms.py --inputs photos captions.txt --checkpoint-path X.pth"""

from hypvl.cli.common import run_main
from hypvl.cli.radius_histograms import main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
