"""`python -m equivariant.potential train settings.toml`, or `evaluate model frames.xyz`."""

import sys

from .command import main

if __name__ == "__main__":
    sys.exit(main())
