"""Functions with handles of their own that the processes of test_handles.py run: each process imports this module anew."""

from __future__ import annotations

import _pickle as pickle

import child_side

import anyfork


def take_and_use(channel, *sent):
    for sock, descriptor in zip(sent[::2], sent[1::2], strict=True):
        template = anyfork.Template.from_socket(sock)
        template.execute("import os; os.write(args[0].fileno(), text)", descriptor).ready().close()
        descriptor.close()


def keep_template(channel, sock):
    template = anyfork.Template.from_socket(sock).ready()
    child_side.say_and_stay(channel)
    template.close()


def ask_of_my_own(channel):
    template = anyfork.Template().send(1)
    with template.fork().run(child_side.answer, 2, 3, "v") as process:
        channel.sendall(pickle.dumps(pickle.loads(process.channel.makefile("rb").read())))
    template.close()


def start_my_own(channel):
    template = anyfork.Template().ready()
    process = template.fork().run(child_side.until_closed)
    channel.sendall(f"{template.pid} {process.pid}".encode())
    child_side.until_closed(channel)
