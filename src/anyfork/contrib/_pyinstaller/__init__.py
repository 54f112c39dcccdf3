"""What PyInstaller is told, by the entry point ``pyinstaller40``: what to take along, and what to run first."""

from __future__ import annotations

import os


def hook_directories() -> list[str]:
    """Return the directory of the hooks."""
    return [os.path.dirname(__file__)]
