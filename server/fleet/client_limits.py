"""The gate's counts for each approved client: asks that it has not pulled, and bytes that it has pushed.

A request names its key, and any peer can name another's key. So nothing counts until Flower has checked the signature.
Everything here belongs to the event loop except `admit`, whose caller holds the turn.
"""

import asyncio
import logging

MAX_BODY = 8 * 2**20  # bytes of one request, and of one whole reply
QUOTA = 4 * MAX_BODY  # bytes that a client may push for one ask: its answer, and again from the start after trouble
_HOLD_SECONDS = 5.0  # far less than a client waits for an answer (30 s), or a signature is good for (300 s)
_MAX_HELD = 2  # requests of one key: a client's own, and one of a connection that broke unseen

log = logging.getLogger("confide")


class Clients:
    """The approved clients, by node key.

    Attributes:
        closed: true once the server ends. All waiting polls have been released, and no new one waits.
    """

    def __init__(self) -> None:
        self._names: dict[bytes, str] = {}  # names of the approved institutions
        self._keys: dict[int, bytes] = {}  # keys by node
        self._pushed: dict[bytes, int] = {}
        self._told: set[bytes] = set()
        self._unpulled: dict[bytes, int] = {}  # never fewer than Flower has: one too many costs one empty pull
        self._held: dict[bytes, list[asyncio.Future[None]]] = {}  # the newest last
        self.closed = False

    def admit(self, nodes: dict[int, str], keys: dict[str, bytes]) -> None:
        """Replace the approved clients, given as names by node and keys by name."""
        self._names = {key: name for name, key in keys.items()}
        self._keys = {node_id: keys[name] for node_id, name in nodes.items()}

    def knows(self, key: bytes) -> bool:
        """Return whether the key is approved. This does not prove that the peer owns it."""
        return key in self._names

    def ask(self, node_id: int) -> None:
        """Note an ask to a client: it has something to pull and may push again."""
        key = self._keys.get(node_id)
        if key is None:
            return
        self._pushed.pop(key, None)
        self._told.discard(key)
        self._unpulled[key] = self._unpulled.get(key, 0) + 1
        _let_go(self._held.get(key, []))

    async def wait_for_ask(self, key: bytes, gone: "asyncio.Future[object]") -> None:
        """Wait until there is something to pull, the client is gone, the server ends, or a few seconds have passed.

        Return at once for a key that is not approved or already has enough requests here. So strangers cannot fill the
        memory. A client whose places they take must poll without a wait.
        """
        held = self._held.setdefault(key, []) if key in self._names else None
        if held is None or len(held) >= _MAX_HELD or self._unpulled.get(key) or self.closed:
            return
        asked = asyncio.get_running_loop().create_future()
        held.append(asked)  # no ask came in between, because nothing was awaited since the look at `_unpulled`
        try:
            await asyncio.wait({asked, gone}, timeout=_HOLD_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            held.remove(asked)

    def has_pulled(self, key: bytes) -> None:
        """Note that Flower has answered a client's pull. It hands out at most one ask."""
        self._unpulled[key] = max(0, self._unpulled.get(key, 0) - 1)

    def close(self) -> None:
        """Release all waiting polls, so that they do not delay the end of the server."""
        self.closed = True
        for held in self._held.values():
            _let_go(held)

    def count(self, key: bytes, size: int) -> None:
        """Count bytes that a client has pushed. Flower can fail over a key before it checks a signature."""
        if key in self._names:  # strangers cannot fill the memory
            self._pushed[key] = self._pushed.get(key, 0) + size

    def refuses(self, key: bytes, size: int) -> bool:
        """Return whether ``size`` more bytes would exceed the quota. The first refusal after an ask is logged."""
        if self._pushed.get(key, 0) + size <= QUOTA:
            return False
        if key not in self._told:
            self._told.add(key)
            name = self._names.get(key, "a client")
            log.warning("%s pushed %d bytes for one ask and is refused until it is asked again", name, QUOTA)
        return True


def _let_go(held: "list[asyncio.Future[None]]") -> None:
    """Wake the newest first: the first at Flower gets the ask, and an older connection may lose it."""
    for asked in reversed(held):
        if not asked.done():
            asked.set_result(None)
