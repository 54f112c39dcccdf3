"""Functions that go by value and take much data with them, for each way in which a function may have some."""

from __future__ import annotations

from functools import partial

import numpy as np

SIZE = 100_000  # bytes: they travel beside a call
TABLE = bytes(range(200)) * (SIZE // 200)
ARRAY = np.arange(SIZE // 8, dtype=np.int64)


class Holder:
    def __init__(self, data):
        self.data = data

    def look_up(self, number):
        return int(self.data[number])

    __call__ = look_up


def of_a_global():
    return lambda number: TABLE[number]


def of_a_global_array():
    return lambda number: int(ARRAY[number])


def of_a_closure():
    data = bytearray(TABLE)
    return lambda number: data[number]


def of_a_list():
    data = list(range(40_000))
    return lambda number: data[number]


def of_a_default():
    data = ARRAY
    return lambda number, data=data: int(data[number])


def of_a_partial():
    return partial(lambda data, number: int(data[number]), ARRAY)


def of_a_method():
    return Holder(ARRAY).look_up


def of_an_object():
    return Holder(TABLE)


def of_a_method_of_an_array():
    return ARRAY.item


FUNCTIONS = {name: made for name, made in globals().items() if name.startswith("of_")}
