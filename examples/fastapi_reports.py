"""A FastAPI service that makes reports in workers: errors as status codes, clients that leave, progress as events.

Needs fastapi and uvicorn. Try it: ``uvicorn fastapi_reports:app``, and then ``curl -N
http://127.0.0.1:8000/reports/5/progress``.
"""

import asyncio
import json
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

import anyfork
from anyfork import aio
from anyfork.contrib.starlette import cancel_on_disconnect


def make_report(pages: int) -> dict[str, float]:
    """Runs in a worker, which may take as long as it likes, or die: the server is another process."""
    squares = []
    for page in range(1, pages + 1):
        squares.append(page**2)
        anyfork.emit(page)
    return {"pages": pages, "mean": statistics.mean(squares)}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Each server process makes its template and its pool when it starts, and ends them with itself."""
    template = aio.Template().preload("statistics")
    async with template, aio.Pool(template, load=1, timeout=30, max_queued=100, when_full="raise") as pool:
        app.state.pool = pool
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/reports/{pages}")
async def report(pages: int, request: Request) -> dict[str, float]:
    """Without the block, the job would go on after its client has left."""
    pool: aio.Pool = request.app.state.pool
    async with cancel_on_disconnect(request):
        return await pool.call(make_report, pages)


@app.get("/reports/{pages}/progress")
async def progress(pages: int, request: Request) -> StreamingResponse:
    """Server-sent events. Starlette closes the stream when its client leaves."""
    return StreamingResponse(events(request.app.state.pool, pages), media_type="text/event-stream")


async def events(pool: aio.Pool, pages: int) -> AsyncIterator[str]:
    """Yield an event for each page, and one for the report or its error."""
    emitted: asyncio.Queue[object] = asyncio.Queue()
    job = asyncio.create_task(pool.call(make_report, pages, on_event=emitted.put_nowait))
    job.add_done_callback(lambda _: emitted.put_nowait(None))
    try:
        while (page := await emitted.get()) is not None:
            yield f"event: page\ndata: {page}\n\n"
        yield f"event: report\ndata: {json.dumps(await job)}\n\n"
    except anyfork.CallError as error:
        yield f"event: failed\ndata: {type(error).__name__}\n\n"
    finally:
        job.cancel()


@app.exception_handler(anyfork.CallError)
async def failed(_request: Request, error: anyfork.CallError) -> JSONResponse:
    """Answer a job that has no result; what its function raised is an error of its own."""
    statuses = {anyfork.CallTimeoutError: 504, anyfork.QueueFullError: 503}
    return JSONResponse({"error": type(error).__name__}, status_code=statuses.get(type(error), 500))
