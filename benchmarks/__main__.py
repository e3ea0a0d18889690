"""The command: `python -m benchmarks [suite ...] [--quick] [--json F] [--html F] [--save]`."""

import sys

from tensornet import restart_with_huge_pages

from .command import main, trains

if __name__ == "__main__":
    if trains():
        restart_with_huge_pages()
    sys.exit(main())
