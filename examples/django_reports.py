"""Django, whole in one file, that makes reports in workers: for ASGI servers, and for WSGI servers.

Needs django, and uvicorn or gunicorn. Try it: ``uvicorn django_reports:asgi`` or ``gunicorn django_reports:wsgi``, and
then ``curl http://127.0.0.1:8000/reports/5``.
"""

import functools
import statistics

import django
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, JsonResponse
from django.urls import path

import anyfork
from anyfork import aio


def make_report(pages: int) -> dict[str, float]:
    """Runs in a worker."""
    return {"pages": pages, "mean": statistics.mean(page**2 for page in range(1, pages + 1))}


# It takes no process before its first use, and belongs to the event loop of that use. With load=1 no report waits in a
# worker behind another one.
pool = aio.Pool(max_workers=2, load=1, timeout=30)


async def report(_request: HttpRequest, pages: int) -> JsonResponse:
    """Django cancels the view when its client leaves, and the pool ends its job."""
    return JsonResponse(await pool.call(make_report, pages))


@functools.cache
def executor() -> anyfork.Executor:
    """Make the executor of this server process at the first request: gunicorn has forked by then."""
    return anyfork.Executor(max_workers=2, timeout=30)


def report_without_loop(_request: HttpRequest, pages: int) -> JsonResponse:
    """The same for WSGI servers, which run views in processes and threads of their own."""
    return JsonResponse(executor().submit(make_report, pages).result())


settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="only for this example", ALLOWED_HOSTS=["*"])
django.setup()
urlpatterns = [path("reports/<int:pages>", report), path("blocking/reports/<int:pages>", report_without_loop)]
asgi = ASGIHandler()
wsgi = WSGIHandler()
