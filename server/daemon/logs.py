"""Structured logs: one JSON object a line, with our own fields only."""

import json
import logging
import sys
import time
from collections import deque
from traceback import extract_tb

_RECENT = 200  # lines
_FRAMES = 12  # the innermost frames of a traceback


class JsonLines(logging.Formatter):
    """A log formatter that writes JSON.

    It leaves out the texts of other libraries' exceptions, because they could quote what a client sent. It keeps the
    place of an error: file, line and function quote no client.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as one line."""
        line: dict[str, str | list[str]] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "from": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0]:
            line["error"] = record.exc_info[0].__name__
            line["at"] = [
                f"{frame.filename}:{frame.lineno} {frame.name}" for frame in extract_tb(record.exc_info[2])[-_FRAMES:]
            ]
        return json.dumps(line, ensure_ascii=False)


class RecentLines(logging.Handler):
    """The last lines of a log, for the server's page."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonLines())
        self.lines = deque[str](maxlen=_RECENT)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line. A library's bad call is told on standard error, and raises nothing into its caller."""
        try:
            self.lines.append(self.format(record))
        except Exception:  # noqa: BLE001 - as logging's own handlers do
            self.handleError(record)


def log_json() -> RecentLines:
    """Write all logs of this process as JSON lines to standard error, but of Flower's only critical ones.

    Return what keeps the last of them.
    """
    recent = RecentLines()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler, recent], force=True)
    for name, level in (
        ("flwr", logging.CRITICAL),
        ("uvicorn", logging.WARNING),
        ("httpx", logging.WARNING),
        ("alembic", logging.WARNING),
    ):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(level)
    return recent
