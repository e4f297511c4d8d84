"""``python -m rdpbench``."""

import sys

from rdpbench.cli import main

if __name__ == "__main__":
    sys.exit(main())
