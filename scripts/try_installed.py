"""Show that the installed package works: import it, and run a process. Exits with an error if it is not installed."""

import os
import sys

import anyfork


def work(channel):
    with channel:
        channel.sendall(b"from what is installed")


where = os.path.dirname(anyfork.__file__)
assert "site-packages" in where, f"{where} is no installation"
assert os.path.exists(os.path.join(where, "py.typed"))
with anyfork.Template().preload("json").ready() as template:
    with template.fork().run(work) as process:
        assert process.channel.makefile().read() == "from what is installed"
        assert process.wait().code == 0
    print(f"anyfork {anyfork.__version__} on Python {sys.version.split()[0]} works: {template!r}")
