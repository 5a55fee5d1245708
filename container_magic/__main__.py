"""``python -m container_magic`` is ``contain``."""

from __future__ import annotations

import sys

from container_magic.entry import main

if __name__ == "__main__":
    sys.exit(main())
