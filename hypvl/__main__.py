"""The command line of hypvl: ``hypvl``, and ``python -m hypvl``."""

import sys


def main() -> int:
    """Run the command that the words typed name, and return its exit code; 130 for Ctrl-C, also during the imports."""
    try:
        from hypvl.cli.registry import run
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
