"""The keys of a block `[platforms.NAME]` with `kind = "powerflex"`, and the parameters of a profile."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from storage.errors import Invalid
from storage.platforms.options import option
from storage.platforms.restapi import is_host

PASSWORD: Final = "POLLY_POWERFLEX_PASSWORD"  # noqa: S105 - the variable's name, not what is in it


def _gateway(url: str) -> str:
    try:
        parts = urlsplit(url)
        alone = parts.scheme == "https" and is_host(parts.hostname) and not (parts.path.strip("/") or parts.query or "@" in parts.netloc)
        plain = alone and url.isprintable() and parts.port != 0
    except ValueError:  # of an address or a port that cannot be
        plain = False
    return "" if plain else "it must be the gateway's address alone, such as https://powerflex.example.com"


def _given(text: str) -> str:
    return "" if text else "it must not be empty"


def _file(path: str) -> str:
    return "" if not path or PurePosixPath(path).is_absolute() else "it must be an absolute path"


def _pools(pools: Sequence[str]) -> str:
    return (
        ""
        if all(0 < pool.find("/") < len(pool) - 1 for pool in pools)
        else 'each is a protection domain and a storage pool, as "domain/pool"'
    )


def _some(number: int) -> str:
    return "" if number >= 1 else "it must be 1 or more"


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerFlexOptions:
    gateway: str = option(says="the address of the REST gateway, such as https://powerflex.example.com", check=_gateway, where=True)
    username: str = option(says="who Polly is there", check=_given)
    password_file: str = option(
        "", says=f"a file with the password alone; not given: the variable {PASSWORD} of the environment", check=_file
    )
    ca_file: str = option(
        "", says="the authorities that the gateway's certificate is checked with (PEM); not given: the system's", check=_file
    )
    pools: tuple[str, ...] = option((), says='which pools to use, as "domain/pool"; not given: all', check=_pools)
    allow_unpadded: bool = option(False, says="make volumes also in pools without zero padding, where a new volume may show old data")
    region: str = option("", says="the region of its pools; empty: they are reached from everywhere")
    zone: str = option("", says="the zone of its pools; empty: they are reached from everywhere")
    calls_per_s: int = option(50, says="how many calls a second one process makes at most", check=_some)
    timeout_s: int = option(30, says="how long one call may take", check=_some)


def password(options: PowerFlexOptions) -> str:
    """Read anew for each login, so that a changed one is taken without a restart. Raises OSError, or Invalid where there is none."""
    file = options.password_file
    found = Path(file).read_text("utf-8").rstrip("\r\n") if file else os.environ.get(PASSWORD, "")
    if not found:
        raise Invalid(field="password_file", value=file, reason=f"there is no password in {file or f'the variable {PASSWORD}'}")
    return found


# --- what a profile may ask for ------------------------------------------------------------------

PROVISIONING: Final = {"thin": "ThinProvisioned", "thick": "ThickProvisioned"}
COMPRESSION: Final = {"none": "None", "normal": "Normal"}
PARAMETERS: Final = {"provisioning": PROVISIONING, "compression": COMPRESSION}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    provisioning: str = PROVISIONING["thin"]
    compression: str | None = None


def read_parameters(given: Mapping[str, str], *, is_copy: bool) -> Parameters:
    """The parameters of a new volume. Raises Invalid for one that there is not, or that a copy cannot have."""
    for key, value in given.items():
        if key not in PARAMETERS:
            raise Invalid(field=f"parameters.{key}", value=value, reason=f"there is no such parameter; there are {', '.join(PARAMETERS)}")
        if value not in PARAMETERS[key]:
            raise Invalid(field=f"parameters.{key}", value=value, reason=f"it must be {' or '.join(PARAMETERS[key])}")
    if is_copy and given.get("provisioning") == "thick":
        raise Invalid(field="parameters.provisioning", value="thick", reason="a volume from a snapshot, or a clone, is thin")
    compression = given.get("compression")
    return Parameters(
        provisioning=PROVISIONING[given.get("provisioning", "thin")],
        compression=COMPRESSION[compression] if compression else None,
    )
