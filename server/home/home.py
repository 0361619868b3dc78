"""The folder of a server: its settings, keys, registry, token, queue and runs."""

import ipaddress
import json
import re
import secrets
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from pydantic import Field, field_validator

from confide.common.config.toml import check, read_toml
from confide.common.durable import write_durably
from confide.common.errors import InputError
from confide.common.settings import Section, Tracking
from confide.server.home.certificates import make_certificates
from confide.server.home.registry import Registry

_HOST_NAME = re.compile("[A-Za-z0-9]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?")


class ServerSection(Section):
    """The section `[server]`: names and ports of the server."""

    names: tuple[str, ...] = Field(min_length=1)
    port: int = Field(8443, ge=0, lt=65536)
    host: str = "0.0.0.0"  # noqa: S104 - institutions come from elsewhere
    admin_port: int = Field(8444, ge=0, lt=65536)
    tracking: Tracking = "none"

    @field_validator("names")
    @classmethod
    def _can_be_reached(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not (_is_address(name) or _HOST_NAME.fullmatch(name)):
                raise ValueError(
                    f"{name!r} must be a host name or an IP address: no https://, no port, "
                    "an international name in the form that begins with xn--"
                )
        return names


class ServerConfig(Section):
    """The whole of server.toml."""

    remedy = "`confide server init DIR` writes one with every key into another folder"
    server: ServerSection


@dataclass(frozen=True)
class Home:
    """The folder in which a server keeps everything.

    Attributes:
        folder: its path.
        config: the content of server.toml.
    """

    folder: Path
    config: ServerConfig

    @property
    def registry(self) -> Registry:
        """The registry of institutions that may take part."""
        return Registry(self.folder / "registry.json")

    @property
    def token(self) -> str:
        """The token that the operator's commands show to the admin port."""
        return (self.folder / "admin.token").read_text(encoding="utf-8").strip()

    @property
    def address(self) -> str:
        """The host and port that institutions are told."""
        name = self.config.server.names[0]
        return f"{f'[{name}]' if ':' in name else name}:{self.config.server.port}"

    @property
    def runs(self) -> Path:
        """The folder of run directories."""
        return self.folder / "runs"

    def ca(self) -> str:
        """Return the PEM of the authority."""
        return (self.folder / "keys" / "ca.pem").read_text(encoding="utf-8")


def init_home(folder: Path, names: list[str], port: int) -> Home:
    """Make a server's folder; `InputError` if it exists and is not empty, or for an unusable name."""
    check(ServerSection, {"names": names, "port": port}, "--host")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} must be new or empty; choose another folder")
    try:
        for inside in (folder, folder / "keys", folder / "runs"):
            inside.mkdir(parents=True, exist_ok=True, mode=0o700)
        make_certificates(folder / "keys", names)
        write_durably(folder / "registry.json", b"[]", 0o600)  # empty; a file missing later was removed
        write_durably(folder / "admin.token", secrets.token_hex(32).encode(), 0o600)
        template = files("confide.server.home").joinpath("server.template.toml").read_text(encoding="utf-8")
        text = template.replace("{names}", json.dumps(names)).replace("{port}", str(port))
        if any(":" in name for name in names):
            text = text.replace('# host = "0.0.0.0"', 'host = "::"     ')
        write_durably(folder / "server.toml", text.encode())
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}; choose another folder") from None
    return open_home(folder)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return "%" not in name  # a zone has a meaning on one machine only


def open_home(folder: Path) -> Home:
    """Open a server's folder; `InputError` if it is none, or belongs to another user."""
    try:
        (folder / "admin.token").open("rb").close()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder} is not a server's folder; `confide server init {folder}` makes one") from None
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}; be the user that `confide server start` runs as") from None
    return Home(
        folder, check(ServerConfig, read_toml(folder / "server.toml", ServerConfig), str(folder / "server.toml"))
    )
