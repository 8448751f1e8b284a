"""``python -m vggt3`` is the command ``vggt3``."""

import sys

from vggt3.cli import main

if __name__ == "__main__":
    sys.exit(main())
