"""A program in a locale that is not UTF-8, with templates whose encoding may differ; prints what comes of that as JSON.

See test_versions.py. Its first argument is the interpreter of the templates, the second one a directory with a name
that is no UTF-8, which is on the path; ``sp\\xe4ter`` in it comes later.
"""

from __future__ import annotations

import json
import os
import sys

import shapes

import anyfork

TEXT = "ä\N{SNOWMAN}\udce4"
NAME = b"N\xe4me"
# Says something on its standard error and ends, before it could become a template.
SAYS = ["-c", "import sys; sys.exit('schade: \\xe4')"]


def refused(python):
    """Return the error of a template that does not start."""
    try:
        anyfork.Template.new_exec(python=python, flags=SAYS).ready()
    except anyfork.LaunchError as error:
        return str(error)


def main(python, directory):
    later = os.fsdecode(os.fsencode(directory) + b"/sp\xe4ter")
    with anyfork.Template.new_exec(python=python) as template, anyfork.Worker(template.fork()) as worker:
        said = {
            "encodings": [shapes.text(), worker.call(shapes.text)],
            "arguments": worker.call(shapes.arguments) == shapes.arguments(),
            "found": worker.call("im_verzeichnis:größe", "ä"),
        }
        sys.path.insert(0, later)
        import im_spaeteren

        said |= {
            "found later": worker.call(im_spaeteren.länge, "ä"),
            "found by name": anyfork.call("im_spaeteren:länge", "ä", template=template),
            "cwd": anyfork.call(os.getcwdb, template=template.fork(cwd=directory)) == os.fsencode(directory),
            "environment": list(
                anyfork.call(os.getenvb, NAME, template=template.fork(env={os.fsdecode(NAME): os.fsdecode(b"\xe9")}))
            ),
            "values": worker.call(shapes.echo, TEXT) == TEXT,
        }
        with open(os.path.join(later, "d\xe4tei"), "w+") as file:  # in the encoding of this program
            said["file"] = worker.call(shapes.write, file, "ä") == file.encoding
            file.seek(0)
            said["written"] = file.read()
        said["refused"] = refused(python)
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
