"""Tables in plain text."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

NONE = "-"


def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table: the first column to the left, numbers to the right. Heads may have two lines."""
    upper = [head.rpartition("\n")[0] for head in heads]
    lower = [head.rpartition("\n")[2] for head in heads]
    lines = [line for line in (upper, lower) if any(line)]
    widths = [max(len(line[column]) for line in (*lines, *rows)) for column in range(len(heads))]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    body = [_line(row, widths) for row in rows]
    return "\n".join([title, "", *(_line(line, widths) for line in lines), rule, *body])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (
        cell.rjust(width) if column else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join([first, *rest]).rstrip()


def number(value: float | None, digits: int = 2) -> str:
    """A number with so many decimals, or a dash for what was not measured."""
    return NONE if value is None else f"{value:.{digits}f}"


def rate(value: float | None) -> str:
    """A rate a second, with decimals only where they say something."""
    return number(value, 0 if value is not None and value >= 100 else 1)
