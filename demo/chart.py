"""Charts of horizontal bars: as text for a terminal, and together as one SVG."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME_WIDTH, VALUE_WIDTH = 22, 24  # characters
EIGHTHS = " ▏▎▍▌▋▊▉"
STYLE = """\
  text { font: 13px system-ui, sans-serif; fill: #1f2328 } .title { font-weight: 600; font-size: 15px }
  .note { fill: #656d76; font-size: 12px } .ours { fill: #0969da } .others { fill: #afb8c1 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .note { fill: #8d96a0 } .ours { fill: #4493f8 } .others { fill: #57606a } }"""
WIDTH, BAR_BEGIN, BAR_WIDTH = 760, 170, 400  # pixels
ROW, HEAD, GAP = 24, 44, 22


@dataclass(frozen=True)
class Bar:
    """One bar: whose, how long, and what is written beside it."""

    name: str
    value: float
    text: str


@dataclass(frozen=True)
class Chart:
    """A question, its bars, and a note on how they were measured. The first bar is anyfork's."""

    title: str
    bars: Sequence[Bar]
    note: str

    @property
    def longest(self) -> float:
        """The value of the longest bar."""
        return max(bar.value for bar in self.bars) or 1

    def as_text(self) -> str:
        """Draw the chart with characters."""
        width = max(10, min(50, shutil.get_terminal_size().columns - NAME_WIDTH - VALUE_WIDTH))
        lines = [f"  {bar.name:{NAME_WIDTH}}{self._bar(bar, width)} {bar.text}" for bar in self.bars]
        return "\n".join([self.title, *lines, f"  {self.note}", ""])

    def _bar(self, bar: Bar, width: int) -> str:
        whole, part = divmod(round(bar.value / self.longest * width * 8), 8)
        drawn = "█" * whole + EIGHTHS[part].strip() or "▏"
        return f"\x1b[{34 if bar is self.bars[0] else 90}m{drawn}\x1b[0m" if sys.stdout.isatty() else drawn

    def as_svg(self, top: int) -> str:
        """Draw the chart at this height of a picture."""
        rows = [self._row(bar, top + HEAD + ROW * number) for number, bar in enumerate(self.bars)]
        title = f'<text class="title" x="16" y="{top + 16}">{escape(self.title)}</text>'
        note = f'<text class="note" x="16" y="{top + 34}">{escape(self.note)}</text>'
        return "\n".join([title, note, *rows])

    def _row(self, bar: Bar, top: int) -> str:
        kind = "ours" if bar is self.bars[0] else "others"
        width = max(1, round(bar.value / self.longest * BAR_WIDTH))
        return (
            f'<text x="16" y="{top + 15}">{escape(bar.name)}</text>'
            f'<rect class="{kind}" x="{BAR_BEGIN}" y="{top + 3}" width="{width}" height="16" rx="2"/>'
            f'<text x="{BAR_BEGIN + width + 8}" y="{top + 15}">{escape(bar.text)}</text>'
        )

    @property
    def height(self) -> int:
        """Its height in a picture."""
        return HEAD + ROW * len(self.bars) + GAP


def picture(charts: Sequence[Chart], subtitle: str) -> str:
    """Return all charts as one SVG, readable on light and dark pages."""
    parts, top = [], 40
    for chart in charts:
        parts.append(chart.as_svg(top))
        top += chart.height
    size = f'width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n'
        f"<title>anyfork beside multiprocessing</title>\n<style>\n{STYLE}\n</style>\n"
        f'<text class="note" x="16" y="20">{escape(subtitle)}</text>\n' + "\n".join(parts) + "\n</svg>\n"
    )
