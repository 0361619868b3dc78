"""A server's end of the fleet protocol that asks whatever a script says, in place of a run."""
from pathlib import Path
from typing import Any


def carry_out_script(script: Path, desk: Any, link: Any, queued: Any) -> Any:
    raise NotImplementedError
