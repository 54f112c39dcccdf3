"""A program whose functions look names of its main module up in every way. It prints what differs in a process."""

from __future__ import annotations

import dataclasses
import enum
import pickle
import sys
import threading
import typing
from pickle import loads

import anyfork

LIMIT = 3
lock = threading.Lock()


@dataclasses.dataclass
class Point:
    x: int
    other: Other | None = None


@dataclasses.dataclass
class Other:
    p: Point


class Outer:
    class Inner:
        def __eq__(self, o):
            return type(self).__name__ == type(o).__name__


def do_a(x):
    return x + LIMIT


def by_name(n):
    return globals()["do_" + n](1)


def by_main(n):
    return getattr(sys.modules["__main__"], "do_" + n)(1)


def by_import():
    import __main__

    return __main__.LIMIT, __main__.do_a(1)


def by_eval():
    return eval("LIMIT * 2 + do_a(1)")


def hints():
    return {k: str(v) for k, v in typing.get_type_hints(Point).items()}


def fhints(p: Point) -> Other:
    return p


def use_fhints():
    return typing.get_type_hints(fhints)["p"].__name__


def inner_pickle():
    return pickle.loads(pickle.dumps(Outer.Inner())) == Outer.Inner()


def comp():
    class S:
        xs = [LIMIT for _ in range(2)]

        class T:
            y = LIMIT
            do_a = do_a

    return S.xs, S.T.y


def local_hints():
    @dataclasses.dataclass
    class L:
        p: Point

    return typing.get_type_hints(L)["p"].__name__


Color = enum.Enum("Color", "RED GREEN")


class NT(typing.NamedTuple):
    a: int


def pick():
    return pickle.loads(pickle.dumps([Color.RED, NT(1), Point(2), do_a]))[1:3] == [NT(1), Point(2)]


class Shape:
    size = LIMIT


def area(shape):
    return shape.size**2


def unpickle(data):
    return [value(Shape()) if value is area else value.size for value in pickle.loads(data)]


def unpickle_by_name(data):
    return [value.size for value in loads(data)[:1]]


def unpickle_in_here(data):
    import pickle as p

    return [value.size for value in p.loads(data)[:1]]


DATA = pickle.dumps([Shape(), Shape])
CASES = [
    (by_name, "a"),
    (by_main, "a"),
    (by_import,),
    (by_eval,),
    (hints,),
    (use_fhints,),
    (inner_pickle,),
    (comp,),
    (local_hints,),
    (pick,),
    (unpickle, DATA),
    (unpickle_by_name, DATA),
    (unpickle_in_here, DATA),
]
if __name__ == "__main__":
    from faces_of_calls import compare

    compare(CASES)
    LIMIT = 10
    with anyfork.Executor(max_workers=1) as executor:
        assert [executor.submit(by_eval).result() for _ in range(3)] == [by_eval()] * 3 == [31] * 3
