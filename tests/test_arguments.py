"""What the owner makes of functions and values: by name, by value, beside descriptors; and what it refuses, and how."""

from __future__ import annotations

import collections
import contextlib
import functools
import gc
import io
import json
import os
import pickle
import queue
import socket
import ssl
import sys
import tempfile
import textwrap
import threading
from multiprocessing import resource_tracker

import child_side
import pytest
from arguments_functions import closed_file, closed_socket
from owner_side import ask, output_of, pipe, result_of, run_python

import anyfork
from _anyfork_child.values.by_value_pickler import ByValuePickler
from _anyfork_child.values.encode import encode
from _anyfork_child.values.functions_by_value import OWNER

# --- What cannot travel ---------------------------------------------------------------------------------------------


def closed_descriptor():
    descriptor = anyfork.Descriptor(os.open(os.devnull, os.O_RDONLY))
    descriptor.close()
    return descriptor


class SaysNo:
    """Its pickling raises."""

    def __reduce__(self):
        raise ZeroDivisionError("no")


class SaysNothing(SaysNo):
    """Its repr raises, too."""

    def __repr__(self):
        raise ZeroDivisionError


CANNOT = {
    "a lock": (threading.Lock, "cannot pickle '_thread.lock' object"),
    "a generator": (lambda: (x for x in ()), "cannot pickle 'generator' object"),
    "a thread": (threading.Thread, "cannot pickle"),
    "a queue": (queue.Queue, "cannot pickle"),
    "a frame": (sys._getframe, "cannot pickle 'frame' object"),
    "a closed socket": (closed_socket, "the socket is closed"),
    "a closed file": (closed_file, "the file is closed"),
    "a closed descriptor": (closed_descriptor, "was closed or detached"),
    "a descriptor that is not open": (lambda: anyfork.Descriptor(999_999), "its descriptor 999999 is not open"),
    "a file around memory": (lambda: io.BufferedReader(io.BytesIO(b"bytes")), "it has no descriptor"),
    "a template": (anyfork.Template, "pass the socket that its detach() returns"),
    "a value that says no": (SaysNo, "ZeroDivisionError: no"),
    "a value without a repr": (SaysNothing, "a SaysNothing"),
    "a value that is too deep": (
        lambda: functools.reduce(lambda inner, _: [inner], range(100_000), []),
        "RecursionError",
    ),
}


@pytest.fixture(params=CANNOT)
def impossible(request):
    make, why = CANNOT[request.param]
    value = make()
    yield value, why
    if isinstance(value, anyfork.Template):
        value.close()


@pytest.fixture
def template():
    with anyfork.Template() as template:
        yield template


def test_what_cannot_travel_is_refused_by_the_call_with_the_reason(template, impossible):
    value, why = impossible
    with pytest.raises(anyfork.ArgumentError) as caught:
        template.send(value)
    assert "argument 1 of send()" in str(caught.value)
    assert "cannot travel to another process" in str(caught.value)
    assert why in str(caught.value)


CALLS = {
    "send": (lambda t, v: t.send(1, 2, v), "argument 3 of send()"),
    "start": (lambda t, v: t.start(child_side.enter, 1, v), "argument 2 of start()"),
    "run": (lambda t, v: t.run("child_side:enter", v), "argument 1 of run()"),
    "start with a function by value": (lambda t, v: t.start(lambda *_: None, 1, v), "argument 2 of start()"),
    "prepare": (lambda t, v: t.prepare(child_side.add, v), "argument 1 of prepare()"),
    "execute": (lambda t, v: t.execute("pass", 1, v), "argument"),
    "nested": (lambda t, v: t.send({"a": [1, (v,)]}), "argument 1 of send()"),
    "closed over": (lambda t, v: t.start(lambda *_: v), "the function of start()"),
    "bound": (lambda t, v: t.start(functools.partial(child_side.enter, v)), "the function of start()"),
}


@pytest.mark.parametrize(("call", "named"), CALLS.values(), ids=CALLS)
def test_the_error_names_the_argument(template, call, named):
    with pytest.raises(anyfork.ArgumentError) as caught:
        call(template, threading.Lock())
    assert named in str(caught.value)


@pytest.mark.parametrize("call", [call for call, _ in CALLS.values()], ids=CALLS)
def test_a_refused_call_leaves_the_handle_as_it_was(template, call):
    with pytest.raises(anyfork.ArgumentError):
        call(template, threading.Lock())
    assert ask(template, "v", "works") == ["works"]


def test_the_first_bad_argument_is_the_one_that_is_named(template):
    with pytest.raises(anyfork.ArgumentError, match=r"argument 2 of send\(\)"):
        template.send(1, threading.Lock(), threading.Lock())


def test_the_error_of_an_argument_is_also_a_type_error(template):
    with pytest.raises(TypeError):
        template.send(threading.Lock())


def test_a_refused_call_leaves_no_descriptor(template):
    before = len(os.listdir("/proc/self/fd"))
    with open(os.devnull) as file, socket.socket() as sock:
        with pytest.raises(anyfork.ArgumentError):
            template.send(file, sock, b"x" * (1 << 20), threading.Lock())
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_tls_socket_is_refused_because_it_is_more_than_its_descriptor(template):
    context = ssl.create_default_context()
    ours, theirs = socket.socketpair()
    with theirs, context.wrap_socket(ours, server_hostname="x", do_handshake_on_connect=False) as tls:
        with pytest.raises(anyfork.ArgumentError, match="cannot pickle 'SSLSocket' object"):
            template.send(tls)


def test_a_compressed_file_is_refused_because_it_is_more_than_its_descriptor(template, tmp_path):
    import gzip

    with (
        gzip.open(tmp_path / "x.gz", "wb") as file,
        pytest.raises(anyfork.ArgumentError, match=r"cannot pickle|has no descriptor: the attribute '_buffer'"),  # 3.15
    ):
        template.send(file)


def test_a_text_file_in_the_middle_of_iterating_is_refused_as_its_position_is_not_known(template, tmp_path):
    (tmp_path / "file").write_text("one\ntwo\n")
    with (tmp_path / "file").open() as file:
        next(file)
        with pytest.raises(anyfork.ArgumentError, match="its position is unknown"):
            template.send(file)


def test_more_descriptors_than_a_frame_can_count_are_refused(template):
    descriptor = [anyfork.Descriptor(0) for _ in range(65_536)]
    with pytest.raises(anyfork.ArgumentError, match="more than 65535 descriptors in one call"):
        template.send(descriptor)


# --- Mistakes of newcomers ------------------------------------------------------------------------------------------

MISTAKES = {
    "a number as a function": (lambda t: t.run(17), r"run\(\) needs a function or 'module:name', not int"),
    "None as a function": (lambda t: t.start(None), r"start\(\) needs a function or 'module:name', not NoneType"),
    "the result of a call": (lambda t: t.run(child_side.enter(None)), r"run\(\) needs a function"),
    "a path as a function": (lambda t: t.run("a/b.py:f"), "needs a function's name as 'package.module:qualified.name'"),
    "nothing as a function": (lambda t: t.run(""), "needs a function's name"),
    "two colons": (lambda t: t.run("a:b:c"), "needs a function's name"),
    "code as a function": (lambda t: t.prepare("print(1)"), "needs a function's name"),
    "a module as a module": (lambda t: t.preload(json), r"preload\(\) needs names of modules"),
    "a file as a module": (lambda t: t.preload("json/tool.py"), r"preload\(\) needs names of modules"),
    "an empty module": (lambda t: t.preload(""), r"preload\(\) needs names of modules"),
    "a list of modules": (lambda t: t.preload(["json"]), r"preload\(\) needs names of modules"),
    "bytes as code": (lambda t: t.execute(b"pass"), r"execute\(\) needs code as a str, not bytes"),
    "a function as code": (lambda t: t.execute(child_side.add_one), r"execute\(\) needs code as a str, not function"),
    "a string as a command": (
        lambda t: t.run_program("ls -l"),
        r"run_program\(\) needs a sequence of arguments, not one",
    ),
    "bytes as a command": (lambda t: t.run_program(b"ls"), r"run_program\(\) needs a sequence of arguments, not one"),
    "numbers in a command": (lambda t: t.run_program(["sleep", 1]), r"run_program\(\) needs strings or paths"),
    "an empty command": (lambda t: t.run_program([]), r"run_program\(\) needs at least the program's name"),
    "no sequence as a command": (lambda t: t.run_program(None), r"run_program\(\) needs"),
}


@pytest.mark.parametrize(("call", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_at_the_call_in_words(template, call, message):
    with pytest.raises(anyfork.ArgumentError, match=message):
        call(template)


@pytest.mark.parametrize("call", [call for call, _ in MISTAKES.values()], ids=MISTAKES)
def test_after_a_mistake_the_handle_works(template, call):
    with pytest.raises(anyfork.ArgumentError):
        call(template)
    assert ask(template, "v", "works") == ["works"]


@pytest.mark.parametrize(
    "call",
    [
        lambda t: t.run(child_side.enter, value=1),
        lambda t: t.start(child_side.enter, timeout=1),
        lambda t: t.prepare(child_side.add, number=1),
        lambda t: t.send(name="value"),
        lambda t: t.start(function=child_side.enter),
        lambda t: t.run_program(argv=["true"]),
    ],
)
def test_keyword_arguments_for_the_function_are_refused(template, call):
    with pytest.raises(TypeError, match="keyword|positional"):
        call(template)


def test_processes_cannot_be_made_by_hand():
    with pytest.raises(TypeError, match=r"made by Template\.start, run and run_program"):
        anyfork.Process()


def test_a_template_takes_no_arguments():
    with pytest.raises(TypeError):
        anyfork.Template("python3")


# --- By name or by value --------------------------------------------------------------------------------------------


def local_function():
    def local():
        pass

    return local


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (child_side.enter, "child_side:enter"),
        (child_side.Holder, "child_side:Holder"),
        (child_side.Holder.static, "child_side:Holder.static"),
        (os.getpid, "posix:getpid"),
        (json.dumps, "json:dumps"),
        (collections.OrderedDict, "collections:OrderedDict"),
        (local_function(), None),
        (lambda: None, None),
        (child_side.Holder().method, None),
        (child_side.Holder(), None),
        (functools.partial(child_side.enter), None),
        (17, None),
    ],
    ids=[
        "function",
        "class",
        "static method",
        "builtin",
        "function of a package",
        "class of a package",
        "local function",
        "lambda",
        "bound method",
        "callable object",
        "partial",
        "number",
    ],
)
def test_a_function_goes_by_name_if_another_interpreter_finds_it_there(function, name):
    assert OWNER.name_of(function) == name


def test_a_function_that_was_replaced_in_its_module_goes_by_value(monkeypatch):
    original = child_side.enter
    monkeypatch.setattr(child_side, "enter", None)
    assert OWNER.name_of(original) is None


def test_a_decorated_function_goes_as_what_its_name_means(template):
    @functools.wraps(child_side.answer)
    def wrapper(channel, *values):
        channel.sendall(pickle.dumps("wrapped"))

    assert result_of(template.run(wrapper)) == "wrapped"


MAIN = textwrap.dedent("""
    import os, pickle, sys
    from dataclasses import dataclass
    import anyfork

    TRACE = os.environ["TRACE"]
    with open(TRACE, "a") as file:
        file.write("run\\n")

    FACTOR = 3

    def triple(channel, number):
        channel.sendall(str(helper(number)).encode())

    def helper(number):
        return number * FACTOR

    @dataclass
    class Point:
        x: int
        def move(self, channel, by):
            channel.sendall(repr(Point(self.x + by)).encode())

    class Base:
        def greet(self):
            return "base"

    class Derived(Base):
        def greet(self):
            return "derived of " + super().greet()

    def use(channel, thing):
        channel.sendall(f"{thing.greet()} {type(thing).__name__}".encode())

    def said(process):
        with process:
            with process.channel.makefile() as lines:
                return lines.read()

    template = anyfork.Template().prepare(helper, 1)
    print(said(template.fork().run(triple, 5)))
    print(said(template.fork().run(Point(1).move, 2)))
    print(said(template.fork().run(use, Derived())))
    print(said(template.fork().run(lambda channel, point: channel.sendall(repr(point).encode()), Point(7))))
    print(said(template.fork().run(eval("lambda channel: channel.sendall(b'evaluated')"))))
    template.close()
""")
MAIN_OUTPUT = "15\nPoint(x=3)\nderived of base Derived\nPoint(x=7)\nevaluated\n"


@pytest.fixture
def trace(tmp_path, monkeypatch):
    """Return a file in which a program leaves a line each time it is run."""
    path = tmp_path / "trace"
    monkeypatch.setenv("TRACE", str(path))
    return path


def test_what_is_defined_in_a_script_travels_and_the_script_is_not_run_again(trace, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(MAIN)
    assert output_of(str(script)) == MAIN_OUTPUT
    assert trace.read_text() == "run\n"


def test_what_is_defined_on_the_command_line_travels(trace):
    assert output_of("-c", MAIN) == MAIN_OUTPUT
    assert trace.read_text() == "run\n"


def test_what_is_defined_in_a_program_from_standard_input_travels(trace):
    assert output_of("-", text=MAIN) == MAIN_OUTPUT
    assert trace.read_text() == "run\n"


def test_what_is_defined_in_a_module_that_is_run_travels(trace, tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "program.py").write_text(MAIN)
    assert output_of("-m", "package.program", cwd=tmp_path) == MAIN_OUTPUT
    assert trace.read_text() == "run\n"


def test_a_script_needs_no_guard(trace, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import anyfork\nprint(anyfork.Template.new_exec().run('posix:_exit').wait().code is not None)\n")
    done = run_python(str(script))
    assert done.stdout.count("\n") == 1


# --- Sizes ----------------------------------------------------------------------------------------------------------

GIGABYTE = textwrap.dedent("""
    import os, sys
    sys.path.insert(0, sys.argv[1])
    import anyfork
    import child_side

    def peak():
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))

    size = 1 << 30
    value = b"x" * size
    template = anyfork.Template().preload("child_side").ready()
    before = peak()
    with template.run(child_side.tell_peak, value) as process:
        length, crc, theirs = process.channel.recv(1000).split()
        status = process.wait()
    import zlib
    print(int(length) == size, int(crc) == zlib.crc32(value), peak() - before, theirs.decode(), status.code)
""")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_gigabyte_in_one_argument_travels_with_one_copy_in_between():
    here = os.path.dirname(child_side.__file__)
    length, crc, ours, theirs, code = output_of("-c", GIGABYTE, here).split()
    assert (length, crc, code) == ("True", "True", "0")
    # The copy in between is a file in memory, which belongs to neither: the owner needs no memory of its own for it,
    # and the process holds the value alone. Figures are in KiB.
    assert int(ours) < 32 << 10
    assert int(theirs) < (1 << 20) + (64 << 10)


def test_a_value_that_does_not_fit_into_a_file_in_memory_is_an_error_of_the_call():
    program = textwrap.dedent("""
        import os, resource, signal, sys, anyfork
        template = anyfork.Template().ready()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        before = len(os.listdir("/proc/self/fd"))
        try:
            template.send(b"x" * (2 << 20))
        except OSError as error:
            print(error.errno, len(os.listdir("/proc/self/fd")) - before)
        print(template.send(b"x").ready() is template)
    """)
    assert output_of("-c", program) == "27 0\nTrue\n"


def test_named_temporary_files_and_wrappers_travel(template):
    with tempfile.NamedTemporaryFile("w+") as file, contextlib.ExitStack() as stack:
        file.write("wrapped")
        file.flush()
        file.seek(0)
        wrapper = stack.enter_context(tempfile.TemporaryFile())
        wrapper.write(b"plain")
        wrapper.seek(0)
        assert ask(template, "[x.read() for x in v]", file, wrapper) == ["wrapped", b"plain"]


def test_files_in_memory_arrive_as_pickle_says(template, tmp_path):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/file", b"memory")
    (tmp_path / "file").write_bytes(b"local")
    with (
        tempfile.SpooledTemporaryFile() as spooled,
        memory.open("/file") as one,
        fsspec.open(str(tmp_path / "file"), "rb") as two,
    ):
        spooled.write(b"spooled")
        spooled.seek(2)
        files = (io.BytesIO(b"bytes"), io.StringIO("text"), spooled, one, two)
        assert ask(template, "[x.read() for x in v]", *files) == [b"bytes", "text", b"ooled", b"memory", b"local"]


def test_the_position_of_a_pipe_is_not_asked(template):
    with pipe() as (read, write), os.fdopen(os.dup(read), "rb") as source:
        os.write(write, b"0123456789")
        os.close(write)
        assert ask(template, "v[0].read()", source) == b"0123456789"


def test_what_was_encoded_by_value_is_freed_at_once():
    data = bytearray(10)
    gc.collect()
    gc.disable()
    try:
        encode((lambda: data,))
        assert not any(isinstance(one, ByValuePickler) for one in gc.get_objects())
    finally:
        gc.enable()


# --- What it is in a value that cannot travel -----------------------------------------------------------------------


class Guarded:
    guard = threading.Lock()

    def __init__(self, **attributes):
        vars(self).update(attributes)


class Slotted:
    __slots__ = ("slot",)

    def __init__(self, slot):
        self.slot = slot


class Chosen:
    """It leaves one attribute out."""

    def __init__(self, kept):
        self.left_out, self.kept = threading.Lock(), kept

    def __getstate__(self):
        return {"kept": self.kept}


def holders():
    """Return functions and values with a lock in each place, made where they go by value."""
    held = threading.Lock()
    made = {"json": json}
    exec("def use(): return guard\ndef outer(): return use()", made | {"guard": held}, names := {})
    names["use"].__globals__["use"] = names["use"]

    def with_default(*, option=held):
        return option

    class Local:
        guard = held

    return {
        "the global 'guard' of function use": names["outer"],
        "the variable 'held' that function holders.<locals>.<lambda> uses": lambda: held,
        "the default of 'option' of function holders.<locals>.with_default": with_default,
        "the attribute 'guard' of class holders.<locals>.Local": lambda: Local,
        "the attribute 'part' of a Guarded": Guarded(part=held),
        "the attribute 'slot' of a Slotted": Slotted(held),
        "the attribute 'kept' of a Chosen": Chosen(held),
        "the argument 'key' of a partial": functools.partial(print, key=held),
        "item 1 of a list": {"list": [1, held]},
    }


@pytest.mark.parametrize("place", holders())
def test_the_error_names_the_part_that_cannot_travel(template, place):
    with pytest.raises(anyfork.ArgumentError) as caught:
        template.send(holders()[place])
    assert str(caught.value).endswith(f"cannot pickle '_thread.lock' object: {place}")


@pytest.fixture(scope="module")
def _tracked():
    """Start the resource tracker, which a lock of multiprocessing needs and which stays for the rest of the program."""
    resource_tracker.ensure_running()


@pytest.mark.usefixtures("_tracked")
def test_a_lock_of_multiprocessing_is_refused_with_the_way_that_it_can_go(template):
    with pytest.raises(anyfork.ArgumentError, match="give it in initargs="):
        template.send(anyfork.get_context().Lock())
