"""News for pages that are open: the page asks for its parts anew when something has changed."""

import asyncio
from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from confide.common.errors import ConfideError
from confide.common.pages.guard import Visit
from confide.common.pages.sessions import Sessions

_LOOK_SECONDS = 1.0
_NEWS = "event: news\ndata:\n\n"
_SIGN_SECONDS = 15.0  # between signs of life, by which a browser that left is noticed


def news(visit: Visit, sessions: Sessions, state: Callable[[], object], is_over: Callable[[], bool]) -> Response:
    """Return a stream that tells each change of ``state``, until the session ends or ``is_over``.

    It begins with news: something may have changed since the page was made, and before the first look.
    """

    async def stream() -> AsyncIterator[str]:
        last, quiet = await _look(state), 0.0
        yield f"retry: 2000\n{_NEWS}"
        while not sessions.has_ended(visit.session):
            await asyncio.sleep(_LOOK_SECONDS)
            if is_over():
                return
            quiet += _LOOK_SECONDS
            now = await _look(state)
            if now != last:
                last, quiet = now, 0.0
                yield _NEWS
            elif quiet >= _SIGN_SECONDS:
                quiet = 0.0
                yield ": here\n\n"
        yield "event: ended\ndata:\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream")


async def _look(state: Callable[[], object]) -> object:
    try:
        return await run_in_threadpool(state)
    except (ConfideError, OSError):
        return None  # the page itself says what is wrong
