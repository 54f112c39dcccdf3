"""Functions that the processes of test_preparation.py run. They import little: each process imports them anew."""

from __future__ import annotations


def append_to_main(text):
    import __main__

    __main__.order.append(text)


def sorted_back(channel, values, *, reverse):
    import pickle

    channel.sendall(pickle.dumps(sorted(values, reverse=reverse)))


class Unnamed:
    """An object that can be called, and has no name."""

    def __call__(self, channel, values):
        sorted_back(channel, values, reverse=False)

    def __getattr__(self, name):
        raise RuntimeError(name) if name == "__qualname__" else AttributeError(name)
