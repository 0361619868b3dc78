"""Flower's deployment layer in this process: its fleet API, behind the gate of public_port.py.

Stock Flower starts a SuperExec and an app process for each run, takes the app's code from its database, and serves its
Control and Runtime APIs beside the fleet API. None of that runs here: no code travels, and no process is spawned.

Private names of flwr 1.41 and 1.42: `create_app`, `SuperLinkLifespanConfig`, `SuperLinkLifespan` and
`load_control_authn_plugin`.
"""

from pathlib import Path
from typing import Any

from flwr.common.constant import TRANSPORT_TYPE_GRPC_RERE
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig, load_control_authn_plugin
from flwr.superlink.main import create_app


def fleet_app(database: Path, port: int) -> Any:
    """Return Flower's web application with authenticated nodes and its state in ``database``."""
    config = SuperLinkLifespanConfig(
        isolation="process",  # no SuperExec
        enable_supernode_auth=True,
        database=str(database),
        host="127.0.0.1",
        port=port,
        authn_plugin=load_control_authn_plugin(),  # for the Control API, which the gate hides
        certificates=None,  # uvicorn does TLS
        insecure=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        control_address="",
        fleet_api_address=None,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        health_server_address=None,
        superexec_auth_secret=None,
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        simulation=False,
        runtime_dependency_install=False,
    )
    return create_app(config, SuperLinkLifespan)
