"""The command: `python -m benchmarks [suite ...] [--quick] [--json F] [--html F] [--save]`."""

import sys

from .command import main

if __name__ == "__main__":
    sys.exit(main())
