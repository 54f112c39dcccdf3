"""Common mistakes: what is said names the operation, the cause, and what to write instead, in each face."""

from __future__ import annotations

import subprocess
import sys

import anyio
import call_functions
import child_side
import pytest

import anyfork
from anyfork import aio


async def in_loop(make, use):
    """Make something of the async face, use it, and close it."""
    made = make()
    try:
        result = use(made)
        return await result if hasattr(result, "__await__") else result
    finally:
        made.kill() if hasattr(made, "kill") else made.close()
        if hasattr(made, "aclose"):
            await made.aclose()


def in_async_face(make, use):
    return lambda: anyio.run(in_loop, make, use)


def in_blocking_face(make, use):
    def call():
        with make() as made:
            return use(made)

    return call


# --- The names of anyfork -------------------------------------------------------------------------------------------


def said_by(code):
    """What a fresh program prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    return done.stdout + done.stderr


def test_the_async_face_is_there_after_importing_anyfork():
    assert "anyfork.aio.Pool" in said_by("import anyfork; print(anyfork.aio.Pool)")


def test_the_context_is_there_after_importing_anyfork():
    assert "get_context" in said_by("import anyfork; print(anyfork.context.get_context)")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("Pool", "use anyfork.Executor, or anyfork.aio.Pool"), ("early", "write `import anyfork.early`")],
)
def test_a_name_that_is_not_there_says_what_is(name, remedy):
    assert remedy in said_by(f"import anyfork; anyfork.{name}")


def test_an_older_python_is_named_with_what_is_needed():
    said = said_by("import sys; sys.version_info = (3, 10, 13); import anyfork")
    assert f"anyfork needs Python 3.11 or newer, but {sys.executable} is Python 3.10" in said.splitlines()[-1]


def test_a_misspelled_name_is_an_attribute_error_that_python_can_correct():
    with pytest.raises(AttributeError, match="no attribute 'Exekutor'") as caught:
        anyfork.Exekutor  # noqa: B018  # it raises
    assert (caught.value.name, caught.value.obj) == ("Exekutor", anyfork)


# --- Handles that were used up --------------------------------------------------------------------------------------

USERS = {
    "start": lambda t: t.start(child_side.enter),
    "run": lambda t: t.run(child_side.enter),
    "run_program": lambda t: t.run_program(["true"]),
    "detach": lambda t: t.detach(),
    "Worker": anyfork.Worker,
}


@pytest.mark.parametrize("forked", [False, True], ids=["new", "with forks"])
@pytest.mark.parametrize("name", USERS)
def test_a_template_that_is_used_up_says_by_what_and_how_to_keep_it(name, forked):
    with anyfork.Template() as template:
        if forked:
            template.fork().close()
        with USERS[name](template):
            pass  # until its process has been closed, too
        with pytest.raises(anyfork.HandleError, match=rf"taken over by {name}\(\): fork\(\) it first to keep it"):
            template.run(child_side.enter)


# --- Handles among the arguments ------------------------------------------------------------------------------------

HANDLES = {
    "a template": (anyfork.Template, "detach"),
    "an async template": (aio.Template, "detach"),
    "a process": (lambda: anyfork.Template().start(child_side.enter), "pass its pid or its channel"),
    "a worker": (anyfork.Worker, "make a Worker there"),
    "an executor": (anyfork.Executor, "make an Executor there"),
}


@pytest.mark.parametrize(("make", "remedy"), HANDLES.values(), ids=HANDLES)
def test_a_handle_among_the_arguments_says_what_to_pass_instead(make, remedy):
    handle = make()
    with pytest.raises(anyfork.ArgumentError, match=f"argument 1 of call.*{remedy}"):
        anyfork.call(len, [handle])
    if hasattr(handle, "shutdown"):
        handle.shutdown()
    elif hasattr(handle, "close"):
        handle.close()


def test_a_pool_among_the_arguments_says_what_to_do_instead():
    async def pass_it():
        async with aio.Pool() as pool:
            await pool.call(len, [pool])

    with pytest.raises(anyfork.ArgumentError, match="make a Pool there"):
        anyio.run(pass_it)


# --- Keyword arguments of the function ------------------------------------------------------------------------------

SMALL = {"base": 16}
KEYWORDS = {
    "call": lambda: anyfork.call(int, "ff", **SMALL),
    "start": in_blocking_face(anyfork.Template, lambda t: t.start(int, **SMALL)),
    "run": in_blocking_face(anyfork.Template, lambda t: t.run(int, **SMALL)),
    "prepare": in_blocking_face(anyfork.Template, lambda t: t.prepare(int, "ff", **SMALL)),
    "Worker.call": in_blocking_face(anyfork.Worker, lambda w: w.call(int, "ff", **SMALL)),
    "Worker.map": in_blocking_face(anyfork.Worker, lambda w: w.map(int, ["ff"], **SMALL)),
    "Worker.stream": in_blocking_face(anyfork.Worker, lambda w: w.stream(int, "ff", **SMALL)),
    "Executor.map": in_blocking_face(anyfork.Executor, lambda e: e.map(int, ["ff"], **SMALL)),
    "aio.call": lambda: anyio.run(lambda: aio.call(int, "ff", **SMALL)),
    "aio.start": in_async_face(aio.Template, lambda t: t.start(int, **SMALL)),
    "aio.run": in_async_face(aio.Template, lambda t: t.run(int, **SMALL)),
    "aio.prepare": in_async_face(aio.Template, lambda t: t.prepare(int, "ff", **SMALL)),
    "aio.Worker.call": in_async_face(aio.Worker, lambda w: w.call(int, "ff", **SMALL)),
    "aio.Worker.map": in_async_face(aio.Worker, lambda w: w.map(int, ["ff"], **SMALL)),
    "aio.Worker.stream": in_async_face(aio.Worker, lambda w: w.stream(int, "ff", **SMALL)),
    "aio.Pool.call": in_async_face(aio.Pool, lambda p: p.call(int, "ff", **SMALL)),
    "aio.Pool.map": in_async_face(aio.Pool, lambda p: p.map(int, ["ff"], **SMALL)),
}


@pytest.mark.parametrize("call", KEYWORDS.values(), ids=KEYWORDS)
def test_a_keyword_argument_of_the_function_names_functools_partial(call):
    with pytest.raises(anyfork.ArgumentError, match=r"functools\.partial\(int, base=16\)"):
        call()


def test_a_misspelled_option_is_told_which_there_are():
    with pytest.raises(anyfork.ArgumentError, match="no option 'timout' .its options are template, timeout, on_event"):
        anyfork.call(call_functions.echo, 1, timout=3)
