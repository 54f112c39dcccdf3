"""A program whose main module has definitions of every kind. The test runs it; it prints what differs in a process."""

import abc
import collections
import ctypes
import dataclasses
import enum
import functools
import struct
import typing


class Plugin:
    registry = {}

    def __init_subclass__(cls, *, tag, **kw):
        super().__init_subclass__(**kw)
        if tag in Plugin.registry:
            raise ValueError("twice")
        Plugin.registry[tag] = cls


class A(Plugin, tag="a"):
    def f(self):
        return "A"


class B(A, tag="b"):
    def f(self):
        return "B" + super().f()


def use_plugins():
    return sorted(Plugin.registry), Plugin.registry["b"]().f(), Plugin.registry["a"] is A, len(Plugin.__subclasses__())


class Meta(type):
    known = []

    def __new__(m, name, bases, ns, **kw):
        if name in [c.__name__ for c in m.known]:
            raise ValueError("twice")
        cls = super().__new__(m, name, bases, ns)
        m.known.append(cls)
        return cls

    def __init__(cls, name, bases, ns, **kw):
        cls.inited = True
        super().__init__(name, bases, ns)


class M1(metaclass=Meta):
    x = 1


class M2(M1, extra=1):
    y = 2


def use_meta():
    return [c.__name__ for c in Meta.known], M2.known[0] is M1, M2.y


class AMeta(abc.ABCMeta):
    def __call__(cls, *a, **k):
        o = super().__call__(*a, **k)
        o.called = 1
        return o


class Abs(metaclass=AMeta):
    @abc.abstractmethod
    def f(self): ...


class Con(Abs):
    def f(self):
        return 3


def use_abc():
    try:
        Abs()
    except TypeError:
        return Con().f(), Con().called, isinstance(Con(), Abs)


class Color(enum.Enum):
    RED = 1
    GREEN = 2
    ROUGE = 1

    def up(self):
        return self.name.upper()


class Planet(enum.Enum):
    EARTH = (5.9, 6.3)

    def __init__(self, mass, radius):
        self.mass = mass
        self.radius = radius

    @property
    def g(self):
        return self.mass / self.radius


class Flags(enum.Flag):
    A = enum.auto()
    B = enum.auto()
    AB = A | B


class S(str, enum.Enum):
    X = "x"


class Coord(bytes, enum.Enum):
    def __new__(cls, value, label):
        o = bytes.__new__(cls, [value])
        o._value_ = value
        o.label = label
        return o

    PX = (0, "P.X")
    PY = (1, "P.Y")


class SE(enum.StrEnum):
    X = enum.auto()


def use_enum(c):
    return (
        c is Color.RED,
        Color.ROUGE.name,
        Color(2).up(),
        Planet.EARTH.mass,
        Planet.EARTH.g,
        Flags.AB.value,
        (Flags.A | Flags.B) is Flags.AB,
        S.X == "x",
        Coord.PY.label,
        Coord(1).label,
        SE.X.value,
    )


def ret_enum():
    return Color.GREEN, Planet.EARTH


class NT(typing.NamedTuple):
    a: int
    b: str = "x"

    def total(self):
        return self.a + 1


class TD(typing.TypedDict, total=False):
    a: int


P = collections.namedtuple("P", "x y")


def use_nt():
    return NT(1).b, NT(2).total(), TD(a=1), sorted(TD.__annotations__), P(1, 2).x, NT._fields, TD.__total__


@dataclasses.dataclass
class Point:
    x: int
    tags: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True, frozen=True)
class SP:
    x: int


def use_dc(p):
    return (
        p == Point(1),
        dataclasses.asdict(p),
        [f.name for f in dataclasses.fields(Point)],
        SP(3),
        dataclasses.replace(SP(3), x=4),
    )


T = typing.TypeVar("T")


class Box(typing.Generic[T]):
    def __init__(self, v: T):
        self.v = v


class IntBox(Box[int]):
    pass


class Proto(typing.Protocol):
    def f(self): ...


UserId = typing.NewType("UserId", int)


def use_gen():
    return IntBox(3).v, Box[int](4).v, UserId(3), IntBox.__orig_bases__


class CS(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"  # what _pack_ has always meant, and what Python 3.15 wants to read
    _fields_ = [("a", ctypes.c_int), ("b", ctypes.c_short * 3), ("c", ctypes.c_char)]


class CO(ctypes.Structure):
    _fields_ = [("inner", CS), ("p", ctypes.POINTER(CS))]


class CU(ctypes.Union):
    _fields_ = [("a", ctypes.c_int), ("b", ctypes.c_float)]


class CB(ctypes.BigEndianStructure):
    _fields_ = [("a", ctypes.c_uint16), ("b", ctypes.c_uint32)]


class Node(ctypes.Structure):
    pass


Node._fields_ = [("v", ctypes.c_int), ("next", ctypes.POINTER(Node))]


def use_ct(s):
    c = CS(1, (2, 3, 4), b"x")
    o = CO(c)
    return s.a, c.b[1], ctypes.sizeof(CS), o.inner.a, bytes(CB(1, 2)), CU(b=1.0).a, ctypes.sizeof(Node)


class Table:
    def __init__(self, n):
        self.n = n

    @functools.cached_property
    def sq(self):
        return [i for i in range(self.n)]

    @functools.singledispatchmethod
    def show(self, a):
        return "o"

    @show.register
    def _(self, a: int):
        return "i"

    def add(self, a, b):
        return a + b

    inc = functools.partialmethod(add, 1)

    @functools.lru_cache
    def cached(self):
        return 5

    @property
    def p(self):
        return 1

    @staticmethod
    def s():
        return 2

    @classmethod
    def c(cls):
        return cls.__name__


class SubProp(functools.cached_property):
    pass


class U:
    @SubProp
    def v(self):
        return 4


def use_table(t):
    return t.sq, t.show(1), t.show("x"), t.inc(4), t.cached(), t.p, t.s(), t.c(), U().v


@functools.singledispatch
def show(v):
    return "object"


@show.register
def _(v: int):
    return "int"


@show.register(list)
def _(v):
    return [show(x) for x in v]


@show.register
def _(v: Point):
    return "point"


def use_sd():
    return show(1), show("x"), show([1, "x"]), show(Point(1)), show.registry[int].__name__


class Desc:
    def __set_name__(self, o, n):
        self.n = n

    def __get__(self, i, o):
        return self.n


class HasD:
    d = Desc()


def use_desc():
    return HasD.d


class Outer:
    class Inner:
        class Deep:
            z = 1

    def mk(self):
        return Outer.Inner.Deep.z, __class__.__name__


def use_outer():
    return Outer().mk()


import contextvars
import logging
import re
import weakref

var = contextvars.ContextVar("var", default=3)
log = logging.getLogger("x")
pat = re.compile("a")
ws = weakref.WeakSet()
wd = weakref.WeakValueDictionary()
wk = weakref.WeakKeyDictionary()
getter = __import__("operator").itemgetter(1)
sx = struct.Struct("<I")


def use_misc():
    return var.get(), pat.match("a").group(), len(ws), len(wd), len(wk), getter([1, 2]), log.name, sx.size


CASES = [
    (use_plugins,),
    (use_meta,),
    (use_abc,),
    (use_enum, Color.RED),
    (ret_enum,),
    (use_nt,),
    (use_dc, Point(1)),
    (use_gen,),
    (use_ct, CS(7)),
    (use_table, Table(3)),
    (use_sd,),
    (use_desc,),
    (use_outer,),
    (use_misc,),
]
if __name__ == "__main__":
    from faces_of_calls import compare

    compare(CASES)
