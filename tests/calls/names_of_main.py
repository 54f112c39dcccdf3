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


class Sentinel:
    __slots__ = ("name",)

    def __init__(self, name):
        self.name = name

    def __reduce__(self):
        return self.name


MISSING = Sentinel("MISSING")


class Options:
    default = Sentinel("Options.default")


def give(value):
    return value


def is_missing(value):
    return value is MISSING, value is Options.default, value.name


UserId = typing.NewType("UserId", int)
P = typing.ParamSpec("P")
R = typing.TypeVar("R", bound=typing.Hashable)


def twice(function: typing.Callable[P, R]) -> typing.Callable[P, R]:
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        return 2 * function(*args, **kwargs)

    return inner


class Task(typing.Generic[P, R]):
    def __init__(self, function: typing.Callable[P, R]):
        self.function = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)


twice_a, task_a, task_a.__name__ = twice(do_a), Task(do_a), "task_a"
NEW_SYNTAX = """
type Tree = list[Tree] | int
type Pair[T] = tuple[T, T]

def first[T](tree: Tree, of: T = None) -> T:
    return tree[0], str(first.__annotations__["tree"].__value__)

def doubled[**Q](function):
    def inner(*args: Q.args, **kwargs: Q.kwargs):
        return 2 * function(*args, **kwargs)
    return inner

def of_pair(pair):
    return str(pair[int].__value__)

NEW = (first, [2, 3]), (doubled(do_a), 2), (give, Tree), (give, Pair), (of_pair, Pair)
"""
NEW = ()
if sys.version_info >= (3, 12):
    exec(compile(NEW_SYNTAX, "new syntax", "exec", dont_inherit=True))


def around():
    def inside():
        return LIMIT

    return inside, Other


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
    *[(function, value) for function in (is_missing, give) for value in (MISSING, Options.default)],
    *[(give, kind) for kind in (UserId, P, R)],
    (twice_a, 1),
    (task_a, 1),
    *NEW,
]
if __name__ == "__main__":
    from faces_of_calls import compare

    compare(CASES)
    LIMIT = 10
    with anyfork.Executor(max_workers=1) as executor:
        assert [executor.submit(by_eval).result() for _ in range(3)] == [by_eval()] * 3 == [31] * 3
    with anyfork.get_context().Pool(1) as pool:
        assert [pool.apply(is_missing, (value,)) for value in (MISSING, Options.default)] == [
            is_missing(MISSING),
            is_missing(Options.default),
        ]
        assert all(pool.apply(give, (value,)) is value for value in (MISSING, Options.default, UserId, P, R))
    template = anyfork.Template().execute("def has(name): return name in globals()")
    with anyfork.Worker(template) as worker:
        assert worker.call(around()[0]) == 10
        assert not worker.call("__main__:has", "around")  # what is around a function need not travel
