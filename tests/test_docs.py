"""The documentation: every Python block in it runs, and prints what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest
from conftest import eventually, owned
from deadlines import PROGRAM_DEADLINE

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
NOT_FOR_ALL_TESTS = ("fastapi",)  # it has no wheels for some interpreters
ENGINES = {"dask.md": "distributed"}  # pages about engines, whose examples take seconds
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def blocks() -> Iterator[object]:
    """Yield each Python block with the output that is said to follow from it, or None."""
    for page in PAGES:
        marks = engine_marks(ENGINES[page.name]) if page.name in ENGINES else []
        text = page.read_text()
        found = list(FENCE.finditer(text))
        for block, following in zip(found, [*found[1:], None], strict=False):
            if block[2] != "python":
                continue
            said = dedent(following[3]) if following is not None and following[2] == "output" else None
            line = text.count("\n", 0, block.start()) + 2
            yield pytest.param(dedent(block[3]), said, id=f"{page.name}:{line}", marks=marks)


def engine_marks(engine: str) -> list[pytest.MarkDecorator]:
    """Make a test slow, and leave it out where the engine is not installed."""
    missing = pytest.mark.skipif(find_spec(engine) is None, reason=f"{engine} is not installed")
    return [pytest.mark.slow, missing]


@pytest.mark.parametrize(("code", "said"), list(blocks()))
def test_code_in_the_documentation_runs_and_prints_what_it_says(code: str, said: str | None, tmp_path: Path) -> None:
    for name in NOT_FOR_ALL_TESTS:
        if f"from {name} import" in code:
            pytest.importorskip(name, reason="installed by the dependency group docs, and tested by scripts/docs")
    script = tmp_path / "script.py"
    script.write_text(code)
    with subprocess.Popen(
        [sys.executable, script], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        output, errors = process.communicate(timeout=PROGRAM_DEADLINE)
    assert (process.returncode, errors) == (0, "")
    if said is not None:
        assert output == said
    eventually(lambda: not owned(process.pid), f"the block left processes: {owned(process.pid)}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    missing = [target for target in LINK.findall(page.read_text()) if not (page.parent / target).exists()]
    assert missing == []
