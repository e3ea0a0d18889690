"""`python -m equivariant.potential train settings.toml`, or `evaluate model frames.xyz`."""

import sys

from tensornet import restart_with_huge_pages

from .command import main

if __name__ == "__main__":
    restart_with_huge_pages()
    sys.exit(main())
