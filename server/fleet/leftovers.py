"""Removal of leftovers: objects that clients announced to Flower's object store, but no open ask needs.

Private names of flwr 1.41 and 1.42: `RunObject` and `MessageRes` (rows), `uint64_to_int64`, `iterate_object_tree`.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.object_store import NoObjectInStoreError
from flwr.supercore.state.schema.linkstate_models import MessageRes
from flwr.supercore.state.schema.objectstore_models import RunObject
from flwr.supercore.utils import uint64_to_int64
from sqlalchemy import delete, select


def drop_leftovers(store: Any, session: Any, run_id: int, asks: Iterable[str]) -> None:
    """Delete a run's objects, except those of open asks and of replies to them. This runs before each round's asks.

    A client may push a quota of bytes for each ask, and an offer may be open for many rounds. Without this, a client
    could fill the disk meanwhile. An institution that has sent half of its answer to an offer loses nothing.
    """
    out = list(asks)
    if not out:
        store.delete_objects_in_run(run_id)
        return
    replies = session.scalars(select(MessageRes.message_id).where(MessageRes.reply_to_message_id.in_(out)))
    kept = {name for root in (*out, *replies) for name in _objects(store, root)}
    mine = RunObject.run_id == uint64_to_int64(run_id)
    for name in set(session.scalars(select(RunObject.object_id).where(mine))) - kept:
        session.execute(delete(RunObject).where(mine, RunObject.object_id == name))
        store.delete(name)  # objects that are kept stay, for they have a parent


def _objects(store: Any, root: str) -> Iterator[str]:
    try:
        yield from (node.object_id for node in iterate_object_tree(store.get_object_tree(root)))
    except NoObjectInStoreError:
        return
