"""Walk to [ROOT]: python scripts/image_traversals.py --image-path assets/cat.png --checkpoint-path model.pth"""

import sys

from hypvl.cli.image_traversals import run

if __name__ == "__main__":
    sys.exit(run())
