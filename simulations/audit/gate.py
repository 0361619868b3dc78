"""The audit of a locked run as a server asks for it, in a process of its own.

    python -m confide.simulations.audit.gate run.lock.json

It reads the run alone: no record, no base model. It prints one JSON object.
"""

import json
import sys
from pathlib import Path

from confide.common.config.run import RunConfig
from confide.simulations.audit.mechanism import audit_mechanism
from confide.simulations.audit.verdicts import Effort

# One audit in a thousand refuses right code by chance; a server that refuses one in twenty would be switched off.
CONFIDENCE = 0.999


def main() -> None:
    """Audit the run that the first argument names."""
    run = RunConfig.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    found = audit_mechanism(run, Effort(confidence=CONFIDENCE))
    sys.stdout.write(json.dumps(found.as_json()))


if __name__ == "__main__":
    main()
