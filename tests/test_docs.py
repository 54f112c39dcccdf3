"""The documentation: every Python block in it runs, and prints what it says."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from importlib.util import find_spec
from inspect import getdoc
from operator import attrgetter
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest
from conftest import eventually, owned
from deadlines import PROGRAM_DEADLINE

import anyfork
import anyfork.context

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
OF_GROUPS = "the dependency groups docs and slow have it, and .ci/run runs this test there"
NOT_FOR_ALL_TESTS = {  # not every environment has them
    **dict.fromkeys(("fastapi", "jupyter_client", "django", "opentelemetry"), OF_GROUPS),
    "torch": "torch is too large to be required: pip install torch==2.13.0",
}
ENGINES = {
    "dask.md": "distributed",
    "rq.md": "rq",
    "jupyter.md": "nbclient",
}  # pages about engines, whose examples take seconds
STARTS_PROGRAMS = re.compile(r"^from anyfork import .*subprocess$", re.MULTILINE)  # none of them may start cold
LOG_COLD_STARTS = "import logging; logging.basicConfig(); logging.getLogger('anyfork.subprocess').setLevel('INFO')\n"
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
    for name, reason in NOT_FOR_ALL_TESTS.items():
        if re.search(rf"^(from|import) {name}\b", code, re.MULTILINE):
            pytest.importorskip(name, reason=reason)
    script = tmp_path / "script.py"
    script.write_text(LOG_COLD_STARTS + code if STARTS_PROGRAMS.search(code) else code)
    with subprocess.Popen(
        [sys.executable, script], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        output, errors = process.communicate(timeout=PROGRAM_DEADLINE)
    assert (process.returncode, errors) == (0, "")
    if said is not None:
        assert output == said
    eventually(lambda: not owned(process.pid), lambda: f"the block left processes: {owned(process.pid)}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    missing = [target for target in LINK.findall(page.read_text()) if not (page.parent / target).exists()]
    assert missing == []


def test_the_list_of_pages_has_each_page_once() -> None:
    listed = re.findall(r"(?:file|root): (\S+)", (ROOT / "docs" / "_toc.yml").read_text())
    pages = [str(page.relative_to(ROOT / "docs").with_suffix("")) for page in PAGES if ROOT / "docs" in page.parents]
    assert sorted(listed) == sorted(pages)


def test_pictures_are_those_that_the_code_draws_and_all_of_them_are_shown() -> None:
    pictures = ROOT / "docs" / "pictures"
    drawings = runpy.run_path(str(pictures / "drawings.py"))
    for name, draw in drawings["PICTURES"].items():
        assert (pictures / f"{name}.svg").read_text() == draw(), "python docs/pictures/drawings.py draws it anew"
    texts = "".join(page.read_text() for page in PAGES)
    for picture in pictures.glob("*.svg"):
        assert f"pictures/{picture.name})" in texts
        styles = "".join(ElementTree.parse(picture).getroot().itertext())
        assert "prefers-color-scheme: dark" in styles or picture.name == "run.svg", "which is a terminal, always dark"


DIRECTIVE = re.compile(
    r"^\.\. (?:py:)?(?:auto)?(?:class|function|exception|data):: (?!anyfork\.contrib\.)(\S+)$", re.MULTILINE
)
EXAMPLE = re.compile(r"::\n\n((?: {4,}.*\n|\n)+)")
MODULES = {"aio": anyfork.aio, "context": anyfork.context, "subprocess": anyfork.subprocess}


def test_the_reference_has_each_public_name_once_and_all_have_docstrings() -> None:
    text = "".join(page.read_text() for page in sorted((ROOT / "docs" / "reference").glob("*.md")))
    public = {f"anyfork.{name}" for name in anyfork.__all__ if name not in MODULES}
    public |= {f"anyfork.aio.{name}" for name in vars(anyfork.aio) if isinstance(getattr(anyfork.aio, name), type)}
    public |= {f"anyfork.aio.{name}" for name in ("call", "open_process", "run_process")}
    public |= {f"anyfork.context.{name}" for name in ("AnyforkContext", "AnyforkProcess", "install")}
    public |= {f"anyfork.subprocess.{name}" for name in ("Popen", "run", "call", "check_call", "check_output")}
    listed = DIRECTIVE.findall(text)
    assert ({*listed} - public, public - {*listed}) == (set(), set()), "in docs/reference, and in the package"
    assert len(listed) == len(public)
    assert [name for name in sorted(public) if not documented(name)] == []


REFERENCE = sorted((ROOT / "docs" / "reference").glob("*.md"))
RUN_ALL = """\
import json, sys, traceback
for name, example in json.load(sys.stdin):
    try:
        exec(compile(example, name, "exec"), {"__name__": "__main__"})
    except BaseException:
        traceback.print_exc()
"""


def docstrings(page: Path) -> Iterator[tuple[str, str]]:
    """Yield each public name on a page of the reference, methods and properties too, and its docstring."""
    for name in DIRECTIVE.findall(page.read_text()):
        found = attrgetter(name.removeprefix("anyfork."))(anyfork)
        if callable(found):
            yield name, getdoc(found) or ""
        for member in vars(found) if isinstance(found, type) else ():
            value = getattr(found, member)
            if not member.startswith("_") and (callable(value) or isinstance(value, property)):
                yield f"{name}.{member}", getdoc(value) or ""


@pytest.mark.untraced
@pytest.mark.parametrize("page", [pytest.param(page, id=page.stem) for page in REFERENCE])
def test_the_examples_of_docstrings_run(page: Path, tmp_path: Path) -> None:
    """Run all examples of a page in one program, one after the other: interpreters take longer than examples."""
    found = [(name, dedent(example)) for name, text in docstrings(page) for example in EXAMPLE.findall(f"{text}\n")]
    command = [sys.executable, "-c", RUN_ALL]
    text = json.dumps(found)
    done = subprocess.run(
        command, input=text, cwd=tmp_path, capture_output=True, text=True, timeout=PROGRAM_DEADLINE, check=True
    )
    assert done.stderr == ""


def test_all_docstrings_have_an_example() -> None:
    without = {name for page in REFERENCE for name, text in docstrings(page) if not EXAMPLE.search(f"{text}\n")}
    assert without == set()


def documented(name: str) -> bool:
    """Return whether a public name has a docstring of its own, and all methods if it is a class. Constants have none."""
    found = attrgetter(name.removeprefix("anyfork."))(anyfork)
    if not isinstance(found, type):
        return isinstance(found, str | int) or bool(found.__doc__)
    methods = [each for each in vars(found) if not each.startswith("_") and callable(getattr(found, each))]
    return bool(found.__doc__) and all(getdoc(getattr(found, each)) for each in methods)
