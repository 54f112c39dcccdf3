"""Common mistakes: what is said names the operation, the cause, and what to write instead, in each face."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

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
    """Return what a fresh program prints."""
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
    "run_module": lambda t: t.run_module("site", "--user-base"),
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


USES_OF_PROCESSES = {
    "ready()": lambda p: p.ready(),
    "channel": lambda p: p.channel,
    "wait()": lambda p: p.wait(),
    "poll()": lambda p: p.poll(),
    "communicate()": lambda p: p.communicate(),
    "send_signal()": lambda p: p.send_signal(15),
    "terminate()": lambda p: p.terminate(),
    "kill()": lambda p: p.kill(tree=True),
    "fileno()": lambda p: p.fileno(),
}
OF_THE_ASYNC_FACE = {"to_blocking()": lambda p: p.to_blocking()}


def test_a_closed_process_names_the_use_that_it_refuses():
    with anyfork.Template().start(child_side.enter) as process:
        process.wait()
    for name, use in {**USES_OF_PROCESSES, "wait() ": lambda p: anyfork.wait([p])}.items():
        with pytest.raises(anyfork.HandleError, match=re.escape(f"{name.strip()} on a process handle that was closed")):
            use(process)


def test_a_closed_process_of_the_async_face_names_the_use_that_it_refuses():
    async def main():
        async with await aio.Template().run(child_side.enter) as process:
            pass
        for name, use in (USES_OF_PROCESSES | OF_THE_ASYNC_FACE).items():
            with pytest.raises(anyfork.HandleError, match=re.escape(f"{name} on a process handle that was closed")):
                await use(process)

    asyncio.run(main())


def test_a_closed_template_names_the_function_that_it_was_given_to():
    with anyfork.Template() as template:
        pass
    with pytest.raises(anyfork.HandleError, match=r"^call\(\) on a template that was closed"):
        anyfork.call(abs, -1, template=template)


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


# --- Functions that are named or called in a wrong way --------------------------------------------------------------

NAMES = {
    "a point in the place of the colon": (("json.dumps",), "a function of a module is written 'json:dumps'"),
    "no module": (("no_such_function",), "define it there with execute"),
    "the function behind its argument": (("hello", child_side.enter), "the function comes first"),
}


@pytest.mark.parametrize(("args", "remedy"), NAMES.values(), ids=NAMES)
def test_a_function_that_is_not_there_says_how_it_is_named(args, remedy):
    with pytest.raises(anyfork.FunctionNotFoundError, match=remedy):
        anyfork.Template().run(*args)


@pytest.mark.parametrize("name", ["call", "Executor", "Worker"])
def test_calls_say_how_a_function_of_a_module_is_named(name):
    calls = {
        "call": lambda: anyfork.call("json.dumps", 1),
        "Executor": in_blocking_face(anyfork.Executor, lambda e: e.submit("json.dumps", 1).result()),
        "Worker": in_blocking_face(anyfork.Worker, lambda w: w.call("json.dumps", 1)),
    }
    with pytest.raises(anyfork.FunctionNotFoundError, match="written 'json:dumps'"):
        calls[name]()


def takes_no_channel():
    """Get nothing."""


def test_a_function_that_takes_no_channel_is_told_that_it_gets_one():
    with anyfork.Template().fork(stderr=anyfork.DEVNULL).run(takes_no_channel) as process:
        assert "gets the channel as its first argument" in process.wait().error


def test_a_function_that_is_awaited_by_nobody_says_what_awaits_it():
    async def give():
        return 1

    with pytest.raises(anyfork.ResultError, match="worker with concurrency="):
        anyfork.call(give)


ENDS = {
    "call": lambda: anyfork.call(sys.exit, 3),
    "Worker": in_blocking_face(anyfork.Worker, lambda w: w.call(sys.exit, 3)),
}


@pytest.mark.parametrize("call", ENDS.values(), ids=ENDS)
def test_a_function_that_ends_its_worker_is_told_how(call):
    with pytest.raises(anyfork.WorkerDiedError, match=r"raises SystemExit\(3\).*raise another exception"):
        call()


# --- Values that nobody gets ----------------------------------------------------------------------------------------


def give(channel):
    channel.close()
    return 42


async def give_later(channel):
    await channel.aclose()
    return 42


def give_nothing(channel):
    channel.close()


@pytest.mark.parametrize(
    ("function", "options"),
    [(give, {}), (give_later, {}), (give_later, {"backend": "trio"})],
    ids=["plain", "async", "trio"],
)
def test_a_value_that_nobody_gets_is_told_on_standard_error(function, options, tmp_path):
    with open(tmp_path / "stderr", "w+") as stderr:
        with anyfork.Template().fork(stderr=stderr).run(function, **options) as process:
            assert process.wait().code == 0
        stderr.seek(0)
        assert f"{function.__name__} returned a value (int), which is discarded" in stderr.read()


def test_nothing_is_told_of_a_function_that_returns_none(tmp_path):
    with open(tmp_path / "stderr", "w+") as stderr:
        with anyfork.Template().fork(stderr=stderr).run(give_nothing) as process:
            process.wait()
        stderr.seek(0)
        assert stderr.read() == ""


# --- Waiting --------------------------------------------------------------------------------------------------------


def write_much(channel):
    channel.sendall(bytes(1 << 20))


@pytest.mark.parametrize(
    ("function", "why"),
    [(write_much, r"\d+ bytes of it are unread in the channel"), (child_side.until_closed, "close it if the process")],
    ids=["unread", "open"],
)
def test_a_wait_in_vain_says_what_the_channel_has_to_do_with_it(function, why):
    process = anyfork.Template().run(function)
    if function is write_much:
        process.channel.recv(1)  # the rest has begun to come
    with pytest.raises(TimeoutError, match=why):
        process.wait(0.01)
    process.kill()
    process.wait()
    process.close()


BLOCKING = {
    "call": lambda: anyfork.call(abs, -1),
    "Template.run": in_blocking_face(anyfork.Template, lambda t: t.run(give_nothing).close()),
    "Worker.call": in_blocking_face(anyfork.Worker, lambda w: w.call(abs, -1)),
    "Executor.map": in_blocking_face(anyfork.Executor, lambda e: list(e.map(abs, [-1]))),
}


@pytest.mark.parametrize("call", BLOCKING.values(), ids=BLOCKING)
def test_a_blocking_call_in_an_event_loop_in_debug_mode_is_warned_of(call):
    async def block():
        call()

    with pytest.warns(RuntimeWarning, match=r"blocks the running event loop.*anyfork\.aio") as caught:
        asyncio.run(block(), debug=True)
    assert {warning.filename for warning in caught} & {__file__, anyfork.call.__globals__["__file__"]} != set()


@pytest.mark.parametrize("debug", [False, True])
def test_what_does_not_block_the_loop_is_not_warned_of(debug):
    async def use():
        async with aio.Pool() as pool, aio.Worker() as worker:
            assert await pool.call(abs, -1) + await worker.call(abs, -1) == 2
        if not debug:
            anyfork.call(abs, -1)

    asyncio.run(use(), debug=debug)


# --- Interpreters that are none, or too old ------------------------------------------------------------------------

OLD = """#!{python}
import sys
at = sys.argv.index("-c")
code = sys.argv[at + 1]
sys.argv[:] = ["-c", *sys.argv[at + 2 :]]
sys.version_info = (3, 10, 13)
exec(code)
"""


@pytest.mark.parametrize("face", [anyfork, aio], ids=["blocking", "async"])
def test_an_interpreter_that_is_too_old_is_named_with_its_version(face, tmp_path):
    python = tmp_path / "python3.10"
    python.write_text(OLD.format(python=sys.executable))
    python.chmod(0o755)

    async def make():
        await aio.Template.new_exec(python=python).ready()

    with pytest.raises(anyfork.LaunchError, match=r"python3.10' is Python 3.10.13, and anyfork needs 3.11 or newer"):
        anyio.run(make) if face is aio else anyfork.Template.new_exec(python=python).ready()


def old_interpreters():
    """Return the old interpreters of this machine, if there are any."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [*versions.glob("2.7*/bin/python"), *versions.glob("3.10*/bin/python")]
    return [str(python) for python in (*found, "/usr/bin/python2.7", "/usr/bin/python3.10") if Path(python).exists()]


def test_old_interpreters_of_this_machine_are_refused():
    if not old_interpreters():
        pytest.skip("no Python 2.7 or 3.10 is here")
    for python in old_interpreters():
        with pytest.raises(anyfork.LaunchError, match=r"is Python (2\.7|3\.10)\.\d+, and anyfork needs 3.11 or newer"):
            anyfork.Template.new_exec(python=python, flags=[]).ready()


def test_a_program_that_is_no_python_is_told_to_be_named_otherwise():
    with pytest.raises(anyfork.LaunchError, match="needs a Python 3.11 or newer there, named with python="):
        anyfork.Template.new_exec(python="/bin/true").ready()


# --- What is no template --------------------------------------------------------------------------------------------

NO_TEMPLATES = {
    "Worker": (lambda: anyfork.Worker(5), r"Worker\(\) needs a template.*not int"),
    "aio.Worker": (lambda: aio.Worker(len), r"Worker\(\) needs a template"),
    "call": (lambda: anyfork.call(len, "", template=anyfork.Template), "not the class Template"),
    "aio.call": (lambda: anyio.run(lambda: aio.call(len, "", template=5)), r"call\(\) needs a template"),
}


@pytest.mark.parametrize(("call", "message"), NO_TEMPLATES.values(), ids=NO_TEMPLATES)
def test_what_is_no_template_is_refused_with_what_is_one(call, message):
    with pytest.raises(anyfork.ArgumentError, match=message):
        call()
