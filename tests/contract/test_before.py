"""The attribute ``before``: a function that runs in the new process before all other attributes are applied."""

from __future__ import annotations

import os
import sys
from functools import partial

import attributes_applied_functions as functions
import pytest
from deadlines import DEADLINE
from owner_side import KINDS, ask, ended, forked_template

import anyfork

MAKERS = {
    **{name: lambda make=make, **attributes: make().fork(**attributes) for name, make in KINDS.items()},
    "new_exec": anyfork.Template.new_exec,
}


@pytest.fixture(params=MAKERS)
def made(request):
    """Return a function that makes a new template with attributes."""
    return MAKERS[request.param]


def test_it_runs_once_and_first(made, tmp_path):
    note = tmp_path / "note"
    with made(before=partial(functions.note_state, str(note)), cwd="/", umask=0o27) as template:
        code = "[__import__('os').getcwd(), __import__('os').umask(0)]"
        assert ask(template, code) == ["/", 0o27]
    before, _, uid = note.read_text().split()
    assert (before, uid) == ("False", str(os.getuid()))


def test_what_it_raises_is_told_with_its_traceback(made):
    with pytest.raises(anyfork.AttributeRefusedError, match=r"before=: PermissionError: \[Errno 1\] no") as caught:
        made(before=functions.refuse).ready()
    assert (caught.value.attribute, caught.value.errno) == ("before", 1)
    assert "in refuse" in caught.value.remote_traceback


template = pytest.fixture(forked_template)


def test_it_may_be_a_lambda_with_descriptors_or_a_name(template):
    read, write = os.pipe()
    file = anyfork.Descriptor(write)
    with template.fork(before=lambda: os.write(file.fileno(), b"here")) as first:
        first.ready(DEADLINE)
    with template.fork(before="attributes_applied_functions:refuse") as second:
        with pytest.raises(anyfork.AttributeRefusedError):
            second.ready(DEADLINE)
    file.close()
    with open(read, "rb") as end:
        assert end.read() == b"here"


REFUSED = {
    functions.stop: (anyfork.AttributeRefusedError, "it wanted to end the process"),
    functions.leave_a_thread: (anyfork.UnsafeTemplateError, "left"),
    functions.close_everything: (anyfork.TemplateDiedError, None),
}


@pytest.mark.parametrize("function", REFUSED, ids=lambda function: function.__name__)
def test_what_no_template_may_do_fails(template, function):
    error, text = REFUSED[function]
    with template.fork(before=function) as child, pytest.raises(error, match=text):
        child.ready(DEADLINE)
    with template.fork() as other:
        other.ready(DEADLINE)


def test_a_copy_that_it_makes_ends(template):
    assert ended(template.fork(before=functions.fork_and_return).run("child_side:leave", 0)).code == 0


@pytest.mark.parametrize("value", [3, "no name", b"x"])
def test_what_is_no_function_is_an_error(template, value):
    with pytest.raises(anyfork.ArgumentError, match="before="):
        template.fork(before=value)


@pytest.mark.skipif(not hasattr(os, "unshare"), reason="this Python has no os.unshare")
@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="a namespace of its own needs root")
def test_it_can_give_the_process_namespaces(template):
    with template.fork(before=partial(os.unshare, os.CLONE_NEWUTS)) as child:
        there = ask(child, "__import__('os').readlink('/proc/self/ns/uts')")
        assert there != os.readlink("/proc/self/ns/uts")
