"""The command ``anyfork report``, which draws a timeline as a page of HTML."""

from __future__ import annotations

import os
import sys

from .report_page import page
from .timeline import TimelineError, read_timeline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn


def run(arguments: Sequence[str], fail: Callable[[str], NoReturn]) -> None:
    """Write the page beside the timeline, or where ``-o`` says, and say where."""
    paths = list(arguments)
    output = ""
    if "-o" in paths[:-1]:
        at = paths.index("-o")
        output = paths[at + 1]
        del paths[at : at + 2]
    if len(paths) != 1 or paths[0].startswith("-"):
        fail("report takes the file of one timeline, and -o PAGE for another name of the page")
    (path,) = paths
    output = output or f"{os.path.splitext(path)[0]}.html"
    if os.path.abspath(output) == os.path.abspath(path):
        fail(f"report would overwrite {path}: name another page with -o")
    try:
        text = page(os.path.basename(path), read_timeline(path))
        with open(output, "w", encoding="utf-8") as file:
            file.write(text)
    except (OSError, TimelineError) as error:
        print(f"anyfork report: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    print(output)
