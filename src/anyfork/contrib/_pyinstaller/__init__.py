"""What PyInstaller is told, by the entry point ``pyinstaller40``: what to take along, and what to run first."""

from __future__ import annotations

import os


def hook_directories() -> list[str]:
    """Where the hooks are."""
    return [os.path.dirname(__file__)]
