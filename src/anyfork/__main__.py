"""``python -m anyfork``."""

from __future__ import annotations

from ._cli.command_line import main

if __name__ == "__main__":
    main()
