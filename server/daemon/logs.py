"""Structured logs: one JSON object a line, of our own fields only."""

import json
import logging
import sys
import time
from traceback import extract_tb

_FRAMES = 12  # of a traceback, the innermost


class JsonLines(logging.Formatter):
    """A record as JSON. Texts of other libraries' exceptions are left out: they could quote what a client sent.

    Where an error came from is told: file, line and function quote nobody.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
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


def log_json() -> None:
    """All logs of this process as JSON lines on standard error; of Flower's only what is wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name, level in (
        ("flwr", logging.CRITICAL),
        ("uvicorn", logging.WARNING),
        ("httpx", logging.WARNING),
        ("alembic", logging.WARNING),
    ):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(level)
