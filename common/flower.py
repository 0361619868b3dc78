"""Flower's environment and version. Call `prepare` before the first import of flwr, which reads the environment."""

import atexit
import importlib.metadata
import logging
import os
import shutil
import tempfile

from confide.common.errors import ConfideError

_ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_SUPERGRID_API_URL": "http://127.0.0.1:9/none",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Tokenizers warn at every fork of the process (Ray forks); they are called from one thread here.
    "TOKENIZERS_PARALLELISM": "false",
}


def prepare() -> None:
    """Turn off Flower's outgoing calls, give it a home folder of its own, and check its version.

    Raises:
        ConfideError: another minor version of flwr is installed, whose protocol and private names may differ.
    """
    os.environ.update(_ENVIRONMENT)
    # Where it is installed, PEFT imports it, and it warns of a kernel of the hub that it did not download.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if "FLWR_HOME" not in os.environ:
        os.environ["FLWR_HOME"] = tempfile.mkdtemp(prefix="confide-flwr-")
        atexit.register(shutil.rmtree, os.environ["FLWR_HOME"], ignore_errors=True)
    version = importlib.metadata.version("flwr")
    if not version.startswith(("1.41.", "1.42.")):
        raise ConfideError(f"flwr {version} is installed, must be 1.41.* or 1.42.*; pip install 'flwr>=1.41,<1.43'")


def versions() -> dict[str, str]:
    """Return the versions of all packages that decide a result or its accounting."""
    names = ("confide", "flwr", "torch", "transformers", "opacus", "peft", "dp-accounting", "numpy")
    return {name: importlib.metadata.version(name) for name in names}
