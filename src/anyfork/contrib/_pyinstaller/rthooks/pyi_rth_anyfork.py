"""Runs in a program that PyInstaller has built, before its main program."""

import anyfork.frozen  # noqa: F401  # this is all
