"""A table of contenders: those that were measured, those that could not be, and why."""

from __future__ import annotations

from .tables import NONE, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .contenders import Contender
    from .samples import Samples


def contest(
    title: str,
    heads: Sequence[str],
    contenders: Sequence[Contender],
    samples: Samples,
    missing: dict[str, str],
    cells: Callable[[str], list[str]],
) -> str:
    """The table: ``cells`` gives those of a contender, by name, behind its label."""
    rows = []
    for contender in contenders:
        if contender.name in samples.data():
            rows.append([contender.label, *cells(contender.name)])
        elif contender.name in missing:
            rows.append([f"{contender.label} (not here)", *[NONE] * (len(heads) - 1)])
    notes = [f"not measured: {name}: {why}" for name, why in missing.items()]
    return "\n".join([table(title, heads, rows), *notes])
