"""A module that both versions of Python of test_versions.py import."""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import enum
import fractions
import os
import re
import resource
import sys
import uuid


class Square:
    def __init__(self, side):
        self.side = side


class RefusedError(Exception):
    def __init__(self, what, *, why):
        super().__init__(what)
        self.why = why


class Colour(enum.Enum):
    RED = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


def version():
    return list(sys.version_info[:2])


def area(square):
    return square.side**2


def echo(value):
    return value


def far_frame(kind):
    raise kind("é", [1])


def refuse(what):
    raise RefusedError(what, why="\udc80")


def text():
    return sys.getfilesystemencoding()


def make_function():
    return lambda: 1


def serve(channel, word):
    channel.sendall(word.encode())


def values():
    """Return values of every kind that pickles alike everywhere."""
    return [
        *(None, ..., NotImplemented, True, -(2**100), 1.5, 2j, "é\udc80\0", "x" * 100_000, b"\0\xff", bytearray(b"a")),
        *({1: [{2}]}, frozenset({1}), range(1, 9, 2), slice(1, None), int, len, Colour.RED, Access.READ | Access.WRITE),
        *(decimal.Decimal("1.50"), fractions.Fraction(1, 3), uuid.UUID(int=1), re.compile("a+", re.IGNORECASE)),
        *(
            datetime.datetime(2020, 2, 29, 1, tzinfo=datetime.UTC),
            datetime.timedelta(1),
            array.array("d", [1.5]),
        ),
        *(collections.OrderedDict(a=1), collections.deque([1], 3), collections.Counter("aab")),
        collections.defaultdict(list, a=[1]),
    ]


def arguments():
    return [list(os.fsencode(argument)) for argument in sys.argv]


def write(file, what):
    file.write(what)
    file.flush()
    return file.encoding


def limits():
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    return [soft, "none" if hard == resource.RLIM_INFINITY else hard]
