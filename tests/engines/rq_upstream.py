"""A plug-in of pytest that lets RQ's own tests run with our worker in the place of theirs."""

import functools
import os

import rq
import rq.worker

from anyfork import Template
from anyfork.contrib.rq import NEEDED, Worker


@functools.cache
def warm(_pid):
    """Make a template once in each process: most of these tests make a worker."""
    return Template().preload(*NEEDED).ready()


class OurWorker(Worker):
    """Our worker, with a template that starts at once."""

    def make_template(self):
        """Return a fork of the template of this process."""
        return warm(os.getpid()).fork()


rq.Worker = rq.worker.Worker = OurWorker
