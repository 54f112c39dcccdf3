"""A plug-in of pytest that lets Celery's own tests run with our task pool in the place of its prefork pool."""

from celery import Celery
from celery.concurrency import ALIASES

ALIASES["prefork"] = "anyfork.contrib.celery:TaskPool"


def add_defaults(app, settings):
    """Keep the settings of the tests' app where they travel to processes that are not copies of the worker.

    Celery's documentation says that ``add_defaults`` does not transfer them.
    """
    app.conf.update(settings)


Celery.add_defaults = add_defaults
