"""What a newcomer sees first: help(anyfork), and the command without arguments."""

from __future__ import annotations

import pydoc
import sys
from textwrap import dedent

from owner_side import output_of

import anyfork


def test_help_begins_with_public_names_and_documents_all_of_them():
    text = pydoc.plaintext.docmodule(anyfork)
    before_modules = text[: text.index("PACKAGE CONTENTS")]
    for name in ("Template", "Process", "call", "Executor", "Worker", "aio", "subprocess", "RemoteTemplate"):
        assert f"    {name} " in before_modules
    assert "_" not in before_modules.replace("run_module", "").replace("fork_here", "").replace(
        "get_context", ""
    ).replace("max_workers", "")
    for name in ("call", "wait", "fork_here", "get_context", "retire"):
        assert f"\n    {name}(" in text


def test_all_has_each_public_name_and_no_other():
    said = output_of("-c", "import anyfork; print(*(name for name in dir(anyfork) if name[0] != '_'))")
    assert sorted(anyfork.__all__) == sorted(said.split())


def test_the_example_in_the_docstring_of_the_package_runs():
    paragraphs = anyfork.__doc__.split("\n\n")
    example = dedent("\n\n".join(each for each in paragraphs if each.startswith("    ")))
    assert example.startswith("import anyfork\n")
    assert "2027" in output_of("-c", example)


def test_the_command_without_arguments_says_what_anyfork_is_and_what_one_can_write():
    said = output_of("-m", "anyfork")
    assert said.startswith(f"anyfork {anyfork.__version__} on Python {sys.version.split()[0]} ({sys.executable})\n")
    assert "usage: anyfork COMMAND" in said
    assert "anyfork.call(" in said
    assert "help(anyfork)" in said
