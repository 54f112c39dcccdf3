"""What the scenes of campaigns run in templates, processes and workers: imported there by this name."""

from __future__ import annotations

import sys


def echo(channel):
    """Send back what comes until the channel ends."""
    while data := channel.recv(65536):
        channel.sendall(data)


def end_with(channel, code):
    """End with an exit code."""
    sys.exit(code)


def fail(channel):
    """End by an exception."""
    raise ValueError("no luck")


def nothing():
    """Do nothing."""


def same(value):
    """Give the value back."""
    return value


def count(end):
    """Yield numbers."""
    yield from range(end)
