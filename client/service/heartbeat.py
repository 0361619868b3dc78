"""Heartbeats that keep a connection alive at the server while the client waits, trains or sends."""

import logging
from collections.abc import Callable
from typing import Any, Literal

from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest

LEASE_HALF = 10  # seconds between heartbeats, as Flower is told: its minimum; the lease is twice that
HEARTBEAT_EVERY = 8.0
News = Literal["connected", "lost"]

log = logging.getLogger("confide")


def keep_alive(http: Any, node: Any, is_over: Callable[[float], bool], tell: Callable[[News], None]) -> None:
    """Send heartbeats of a node and report whether the server answers.

    Args:
        http: Flower's client.
        node: as the server has numbered it.
        is_over: waits for the given seconds and returns whether the connection has ended.
        tell: is given the news.
    """
    request = SendNodeHeartbeatRequest(node=node, heartbeat_interval=LEASE_HALF)
    while not is_over(HEARTBEAT_EVERY):
        try:
            http.SendNodeHeartbeat(request)
            tell("connected")
        except Exception as error:  # noqa: BLE001 - the main loop meets the same trouble, and acts on it
            tell("lost")
            log.warning("heartbeat failed (%s)", type(error).__name__)
