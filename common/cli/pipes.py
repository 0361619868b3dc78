"""Standard output and error: a pipe's reader may leave before the end, as `head -1` does; a sign may be unprintable."""

import io
import os
import stat
import sys
from typing import Any


def outlive_readers() -> None:
    """Discard output once its reader has left, from now on: the command then does its work to the end, silently."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and stream is getattr(sys, f"__{name}__") and _is_pipe(stream.fileno()):
            stream.flush()
            lasting = io.BufferedWriter(_Pipe(stream.fileno(), "w", closefd=False))
            kept = {key: getattr(stream, key) for key in ("encoding", "errors", "line_buffering", "write_through")}
            setattr(sys, name, io.TextIOWrapper(lasting, **kept))


def _is_pipe(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def print_any_text() -> None:
    r"""Print a sign that its encoding does not hold, as half a character of a record, by its escape: \ud83d."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # it is None where a process has no output
        sys.stdout.reconfigure(errors="backslashreplace")  # as Python sets standard error


class _Pipe(io.FileIO):
    """The lowest layer of a stream, so that it also catches output still buffered when the process ends."""

    def write(self, data: Any) -> int:
        """Write; once the reader has left, write to the null device."""
        try:
            return super().write(data)
        except BrokenPipeError:
            nobody = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nobody, self.fileno())
            os.close(nobody)
            return len(memoryview(data))
