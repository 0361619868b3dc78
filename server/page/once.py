"""One order for each form that was shown: a double click, or a page that is sent again, orders nothing twice."""

import asyncio
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool

_MOST = 100  # forms that are remembered; the oldest is forgotten


class Once:
    """The orders that came from forms, by what the form held: the form's own number, and what was typed."""

    def __init__(self) -> None:
        self._orders = dict[tuple[str, ...], asyncio.Future[str]]()

    async def ordered(self, form: tuple[str, ...], order: Callable[[], str]) -> str:
        """Carry out an order, and return its result; the same form again gets the same result.

        An order that failed may be given again.

        Args:
            form: its number, which no other form has, and its fields.
            order: is called in a thread, once.

        Raises:
            ConfideError: as the order does.
        """
        known = self._orders.get(form)
        if known is None or (known.done() and (known.cancelled() or known.exception())):
            self._orders.pop(form, None)
            known = self._orders[form] = asyncio.ensure_future(run_in_threadpool(order))
            for oldest in list(self._orders)[:-_MOST]:
                del self._orders[oldest]
        # The browser gives up the first of two requests, and the order goes on.
        return await asyncio.shield(known)
