"""The tree of errors: one class for each decision a caller can make, and all survive the way through a pickle."""

from __future__ import annotations

import copy
import copyreg
import inspect
import pickle

import pytest

import anyfork
from anyfork import ExitStatus, _errors

CLASSES = [
    value for value in vars(_errors).values() if inspect.isclass(value) and issubclass(value, anyfork.AnyforkError)
]
DETAILS = {
    anyfork.PreloadError: {"module": "a.b"},
    anyfork.UnsafeTemplateError: {"threads": "one, two"},
    anyfork.LaunchError: {"stderr": "said"},
    anyfork.TemplateDiedError: {"status": ExitStatus(3), "stderr": "said"},
    anyfork.AttributeRefusedError: {"attribute": "cwd", "errno": 2},
    anyfork.ProgramError: {"program": "ls", "errno": 2},
    anyfork.DiedBeforeReadyError: {"status": ExitStatus(signal=9), "stderr": "said"},
    anyfork.ForkError: {"errno": 11},
}


def made(cls):
    details = dict(DETAILS.get(cls, {}))
    number = details.pop("errno", None)
    error = cls("what happened", remote_traceback="Traceback: there\n", **details)
    if number is not None:
        error.errno = number
    return error


def seen(error):
    details = {name: getattr(error, name) for name in DETAILS.get(type(error), {})}
    return type(error), str(error), error.args, error.remote_traceback, error.__notes__, details


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_pickle(cls, protocol):
    error = made(cls)
    assert seen(pickle.loads(pickle.dumps(error, protocol))) == seen(error)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_an_error_survives_copying(cls):
    error = made(cls)
    assert seen(copy.copy(error)) == seen(copy.deepcopy(error)) == seen(error)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_is_public_and_says_so(cls):
    assert getattr(anyfork, cls.__name__) is cls
    assert cls.__module__ == "anyfork"


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_the_tree_in_the_documentation_is_the_real_one(cls):
    above: dict[int, str] = {}  # the last name at each depth
    for line in (_errors.__doc__ or "").splitlines():
        text = line.lstrip(" │├└─")
        name = text.split(" ")[0]
        depth = len(line) - len(text)
        if name == cls.__name__:
            parents = [above[level] for level in sorted(above) if level < depth]
            assert parents[-1:] == ([] if cls is anyfork.AnyforkError else [cls.__bases__[0].__name__])
            return
        if name.endswith("Error"):
            above[depth] = name
    pytest.fail("it is not in the documentation")


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_says_what_it_means(cls):
    assert len((cls.__doc__ or "").split()) > 5


def test_the_errors_that_python_has_a_class_for_are_of_it_too():
    assert issubclass(anyfork.ArgumentError, TypeError)
    assert issubclass(anyfork.ForkError, OSError)
    assert issubclass(anyfork.NotReadyError, TimeoutError)


def test_the_remote_traceback_is_a_note():
    error = anyfork.PrepareError("what happened", remote_traceback="Traceback: there\n")
    assert error.__notes__ == ["In the other process:\nTraceback: there"]


def test_without_a_remote_traceback_there_is_no_note():
    error = anyfork.PrepareError("what happened")
    assert (error.remote_traceback, getattr(error, "__notes__", [])) == ("", [])


def test_an_error_without_output_has_an_empty_one():
    assert anyfork.LaunchError("what happened").stderr == ""


def test_a_copy_has_no_traceback_whatever_a_library_teaches_pickle(monkeypatch):
    def with_traceback(error):
        return as_caught, (error.args, error.__traceback__)

    def as_caught(args, traceback):
        return anyfork.PreloadError(*args).with_traceback(traceback)

    monkeypatch.setitem(copyreg.dispatch_table, anyfork.PreloadError, with_traceback)
    with pytest.raises(anyfork.PreloadError) as caught:
        raise anyfork.PreloadError("said", module="a.b")
    copied = copy.copy(caught.value)
    assert (type(copied), copied.args, copied.module) == (anyfork.PreloadError, ("said",), "a.b")
    assert copied.__traceback__ is None
