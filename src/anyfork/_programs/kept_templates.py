"""The kept templates of one process, by what they are made of."""

from __future__ import annotations

import threading

from _anyfork_client.place import START_VARIABLES

from .kept_template import KeptTemplate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    from .kept_template import Recipe

    Kind: TypeAlias = tuple[Recipe, tuple[str, ...], tuple[tuple[bytes, bytes], ...]]

MOST_TEMPLATES = 8  # those that were not used for the longest time end first
AT_START = tuple(name.encode() for name in START_VARIABLES)


class KeptTemplates:
    """Templates by their recipe, the options of their interpreter, and the variables that only its start reads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._templates: dict[Kind, KeptTemplate] = {}

    def get(self, recipe: Recipe, options: Sequence[str], env: Mapping[bytes, bytes]) -> KeptTemplate:
        """Return the template for programs with these options and this environment. It may not be made yet."""
        kind = recipe, tuple(options), tuple(sorted(item for item in env.items() if item[0].startswith(AT_START)))
        with self._lock:
            kept = self._templates.setdefault(kind, KeptTemplate(recipe, options))
            kept.use()
            by_use = sorted(self._templates, key=lambda kind: -self._templates[kind].last_use)
            surplus = [self._templates.pop(kind) for kind in by_use[MOST_TEMPLATES:]]
        for one in surplus:
            one.close()
        return kept

    def all(self) -> list[KeptTemplate]:
        """Return the templates of now."""
        with self._lock:
            return [*self._templates.values()]

    def close(self) -> None:
        """Let all templates end; processes that were forked from them go on."""
        for kept in self.all():
            kept.close()
