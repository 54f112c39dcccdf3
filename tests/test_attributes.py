"""The attributes as the owner checks them: what makes no sense is an error of the call, which names the attribute."""

from __future__ import annotations

import os
import resource

import pytest

import anyfork
from anyfork._processes.attributes import encode_attributes

WRONG = {
    "cwd": [3.5, ["/tmp"], 999_999],
    "env": ["A=1", {"A=B": "1"}, {"": "1"}, {"A": 1}, {"A": "a\0b"}, 3],
    "umask": ["077", True, 1.0],
    "stdin": ["file", 999_999, object(), b"/dev/null", anyfork.STDOUT],
    "stdout": ["/dev/null", 999_999, 3.5, anyfork.STDOUT],
    "stderr": ["stdout", -4, []],
    "nice": ["5", 1.5, True],
    "rlimits": [{"NO_SUCH": 1}, {"NOFILE": "many"}, {"NOFILE": (1, 2, 3)}, {"NOFILE": 1.5}, [1], {1.5: 1}],
    "user": [1.5, True, b"nobody", []],
    "group": [1.5, False, b"nogroup", ()],
    "extra_groups": ["daemon", 5, [1.5], [None]],
    "new_session": [1, "yes", 0],
    "title": [5, b"x", "a\0b"],
    "detached": [1, "yes"],
}
MAKERS = {"fork": lambda **attributes: anyfork.Template().fork(**attributes), "new_exec": anyfork.Template.new_exec}


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, id=f"{name}-{number}")
        for name, values in WRONG.items()
        for number, value in enumerate(values)
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_the_call_which_names_it(make, name, value):
    with pytest.raises(anyfork.ArgumentError) as caught:
        MAKERS[make](**{name: value})
    assert str(caught.value).startswith(f"{make}() cannot use {name}={value!r}: ")


@pytest.mark.parametrize("make", MAKERS)
def test_a_name_that_is_no_attribute_is_refused_with_those_that_there_are(make):
    with pytest.raises(anyfork.ArgumentError, match=rf"{make}\(\) has no attribute 'dir'; there are cwd, env, umask"):
        MAKERS[make](dir="/")


def test_a_closed_file_is_refused_as_a_stream():
    with open(os.devnull) as file:
        pass
    with pytest.raises(anyfork.ArgumentError, match="stdout="):
        anyfork.Template().fork(stdout=file)


def test_all_that_make_sense_are_accepted():
    with open(os.devnull) as file:
        encoded = encode_attributes(
            "fork",
            {
                "cwd": b"/",
                "env": {"A": "b", "C": ""},
                "umask": 0o22,
                "stdin": file,
                "stdout": 1,
                "stderr": anyfork.DEVNULL,
                "nice": 1,
                "rlimits": {"nofile": 5, resource.RLIMIT_CORE: (0, resource.RLIM_INFINITY)},
                "user": 0,
                "group": "root",
                "extra_groups": (0, "daemon"),
                "new_session": False,
                "title": "größer",
                "detached": False,
            },
        )
        assert encoded.fds == [file.fileno(), 1]


def test_no_attributes_make_an_empty_frame():
    encoded = encode_attributes("fork", {"cwd": None, "detached": True})
    assert (encoded.size, encoded.fds) == (0, [])


def test_a_refused_attribute_leaves_no_descriptor():
    with anyfork.Template() as template, open(os.devnull) as file:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(anyfork.ArgumentError):
            template.fork(stdin=file, stdout=file, nice="no")
        with pytest.raises(anyfork.ArgumentError):
            anyfork.Template.new_exec(stdin=file, cwd="/", nice="no")
        assert len(os.listdir("/proc/self/fd")) == before
