"""A program that uses templates of another version of Python, and prints what comes of that as JSON. See test_versions.py."""

from __future__ import annotations

import json
import resource
import sys

import shapes

import anyfork

HARD = resource.getrlimit(resource.RLIMIT_CORE)[1]  # which usually is none


def double(number):
    return number * 2


class Point:
    side = 1


def outcome(function, *args, **options):
    """Return what a function returns, or what it raises."""
    try:
        return function(*args, **options)
    except anyfork.AnyforkError as error:
        return [type(error).__name__, str(error)]


def attempt(function, *args):
    """Return what a user's function raises, with its attributes."""
    try:
        function(*args)
    except (ValueError, shapes.RefusedError) as error:
        return [type(error).__name__, error.args, getattr(error, "why", ""), "in far_frame" in str(error.__cause__)]


def limits_of(hard):
    return [0, "none" if hard == resource.RLIM_INFINITY else hard]


def main(python):
    with anyfork.Template.new_exec(python=python) as template, anyfork.Worker(template.fork()) as worker:
        with template.fork().run(shapes.serve, "é\N{SNOWMAN}") as process:
            served = process.channel.makefile(encoding="utf-8").read()
        said = {
            "version": worker.call(shapes.version),
            "named": [worker.call(shapes.area, shapes.Square(3)), worker.call("shapes:area", shapes.Square(4))],
            "values": worker.call(shapes.echo, shapes.values()) == shapes.values(),
            "results": worker.call(shapes.values) == shapes.values(),
            "errors": [attempt(worker.call, shapes.far_frame, ValueError), attempt(worker.call, shapes.refuse, "é")],
            "text": [served, worker.call(shapes.text), shapes.text()],
            "limits": anyfork.call(shapes.limits, template=template.fork(rlimits={"CORE": (0, HARD)}))
            == limits_of(HARD),
            "by value": [
                outcome(worker.call, double, 2),
                outcome(worker.call, shapes.area, Point()),
                outcome(anyfork.call, double, 2, template=template),
                outcome(template.fork().run, double),
                outcome(lambda: template.fork().prepare(double, 2).ready()),
            ],
            "back by value": outcome(worker.call, shapes.make_function),
            "goes on": worker.call(shapes.area, shapes.Square(5)),
        }
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1])
