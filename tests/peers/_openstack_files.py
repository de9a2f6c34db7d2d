"""The files that OpenStack's services are configured with: all on loopback, all in one folder, their databases in one PostgreSQL."""

from __future__ import annotations

import configparser
import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

Sections = Mapping[str, Mapping[str, object]]

REGION = "RegionOne"
SHARE = "127.0.0.1:/polly"
"""What Cinder's NFS driver is told to mount; the share is a folder that is bound where it would be mounted."""
ADMIN_PASSWORD = "admin-secret"
TOKENS_KEPT_S = 2
"""How long services may still take a token that has ended."""
USER, USER_PASSWORD = "polly", "user-secret"
SERVICE_PASSWORD = "service-secret"

COMPUTE_HOST = "polly-compute"
DATABASES = ("keystone", "cinder", "nova_api", "nova_cell0", "nova", "placement")
SUDO = """#!/bin/sh
# We are root already, and no filter of commands is what is tested here.
if [ "$1" = cinder-rootwrap ]; then shift 2; fi
exec "$@"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    keystone: int
    cinder: int
    nova: int
    placement: int
    elsewhere: int
    """Of the stand-in for the network and image services, which Nova asks but nobody here uses."""
    rabbit: int
    rabbit_distribution: int
    epmd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    root: Path
    ports: Ports
    venv: Path
    databases: dict[str, str] = field(default_factory=dict)
    """SQLAlchemy's URL for each of DATABASES, once they are there."""

    @property
    def nfs_mounts(self) -> Path:
        """Where Cinder's driver looks for its share."""
        return self.root / "cinder" / "nfs"

    @property
    def nfs_mount(self) -> Path:
        return self.nfs_mounts / hashlib.md5(SHARE.encode(), usedforsecurity=False).hexdigest()

    @property
    def share(self) -> Path:
        """The folder that plays the NFS server's export."""
        return self.root / "share"

    @property
    def clouds(self) -> Path:
        return self.root / "clouds.yaml"

    @property
    def keystone_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.keystone}/v3"

    @property
    def messages_url(self) -> str:
        return f"rabbit://guest:guest@127.0.0.1:{self.ports.rabbit}/"

    @property
    def environment(self) -> dict[str, str]:
        """Of every program."""
        services = {f"OS_{name.upper()}_CONFIG_DIR": str(self.root / name) for name in ("keystone", "nova", "placement")}
        path = f"{self.root}/bin:{self.venv}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {"PATH": path, "HOME": str(self.root), "LC_ALL": "C.UTF-8", **services}

    @property
    def rabbit_environment(self) -> dict[str, str]:
        """All of the broker's listeners on loopback, all its files below the folder."""
        home = self.root / "rabbit"
        return {
            "HOME": str(home),
            "RABBITMQ_NODENAME": f"polly{self.ports.rabbit}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.ports.rabbit),
            "RABBITMQ_DIST_PORT": str(self.ports.rabbit_distribution),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self.ports.epmd),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 2",
            "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_PID_FILE": str(home / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(home / "none"),
            "RABBITMQ_CONF_ENV_FILE": str(home / "none.conf"),
        }

    def write(self) -> None:
        for name in ("keystone", "cinder", "nova", "placement", "rabbit", "share", "bin", "log"):
            (self.root / name).mkdir()
        for name in ("state", "locks", "coordination"):
            (self.root / "cinder" / name).mkdir()
            (self.root / "nova" / name).mkdir()
        self.nfs_mount.mkdir(parents=True)
        for service in ("cinder", "nova"):
            shutil.copy(self.venv / "etc" / service / "api-paste.ini", self.root / service)
            shutil.copy(self.venv / "etc" / service / "rootwrap.conf", self.root / service)
        shutil.copy(self.venv / "etc" / "cinder" / "resource_filters.json", self.root / "cinder")
        (self.root / "cinder" / "nfs_shares").write_text(f"{SHARE}\n")
        (self.root / "bin" / "sudo").write_text(SUDO)
        (self.root / "bin" / "sudo").chmod(0o755)
        self._write("keystone/keystone.conf", self._keystone())
        self._write("cinder/cinder.conf", self._cinder())
        self._write("nova/nova.conf", self._nova())
        self._write("placement/placement.conf", self._placement())

    def _write(self, name: str, sections: Sections) -> None:
        made = configparser.RawConfigParser()
        made.read_dict({section: {key: str(value) for key, value in keys.items()} for section, keys in sections.items()})
        with open(self.root / name, "w") as file:
            made.write(file)

    def _database(self, name: str) -> dict[str, object]:
        return {"connection": self.databases[name], "max_pool_size": 3, "max_overflow": 2}

    def _login(self, user: str) -> dict[str, object]:
        return {
            "auth_type": "password",
            "auth_url": self.keystone_url,
            "username": user,
            "password": SERVICE_PASSWORD,
            "project_name": "service",
            "user_domain_id": "default",
            "project_domain_id": "default",
            "region_name": REGION,
        }

    def _checks_tokens(self, user: str) -> dict[str, object]:
        """What is known of a token is kept for a moment only, so that one that ends is soon refused."""
        return {
            **self._login(user),
            "www_authenticate_uri": self.keystone_url,
            "service_token_roles": "service",
            "service_token_roles_required": True,
            "token_cache_time": TOKENS_KEPT_S,
        }

    def _keystone(self) -> Sections:
        keys = f"{self.root}/keystone/keys"
        return {
            "DEFAULT": {"log_dir": ""},
            "database": self._database("keystone"),
            "identity": {"password_hash_rounds": 4},
            "fernet_tokens": {"key_repository": keys},
            "fernet_receipts": {"key_repository": keys},
            "credential": {"key_repository": f"{self.root}/keystone/credential"},
            "cache": {"enabled": True, "backend": "dogpile.cache.memory"},
            "token": {"provider": "fernet", "caching": False},
        }

    def _cinder(self) -> Sections:
        home = self.root / "cinder"
        helper = f"{self.venv}/bin/privsep-helper --config-file {home}/cinder.conf"
        return {
            "DEFAULT": {
                "auth_strategy": "keystone",
                "api_paste_config": home / "api-paste.ini",
                "resource_query_filters_file": home / "resource_filters.json",
                "rootwrap_config": home / "rootwrap.conf",
                "state_path": home / "state",
                "log_dir": "",
                "my_ip": "127.0.0.1",
                "host": "polly-cinder",
                "osapi_volume_listen": "127.0.0.1",
                "osapi_volume_listen_port": self.ports.cinder,
                "osapi_volume_workers": 1,
                "transport_url": self.messages_url,
                "rpc_response_timeout": 20,
                "enabled_backends": "nfs1",
                "default_volume_type": "nfs",
                "enable_new_services": True,
                "report_interval": 2,
                "service_down_time": 8,
                "scheduler_driver_init_wait_time": 2,
                "quota_volumes": -1,
                "quota_snapshots": -1,
                "quota_gigabytes": 100000,
                "max_over_subscription_ratio": 1000,
            },
            "database": self._database("cinder"),
            "oslo_concurrency": {"lock_path": home / "locks"},
            "coordination": {"backend_url": f"file://{home}/coordination"},
            "oslo_messaging_rabbit": {"rabbit_retry_interval": 1, "rabbit_retry_backoff": 1, "kombu_reconnect_delay": 0.5},
            "keystone_authtoken": self._checks_tokens("cinder"),
            "nova": self._login("nova"),
            "cinder_sys_admin": {"helper_command": helper},
            "privsep_osbrick": {"helper_command": helper},
            "nfs1": {
                "volume_backend_name": "nfs1",
                "volume_driver": "cinder.volume.drivers.nfs.NfsDriver",
                "nfs_shares_config": home / "nfs_shares",
                "nfs_mount_point_base": self.nfs_mounts,
                "nfs_snapshot_support": True,
                "nfs_sparsed_volumes": True,
                "nas_secure_file_operations": False,
                "nas_secure_file_permissions": False,
            },
        }

    def _nova(self) -> Sections:
        home = self.root / "nova"
        return {
            "DEFAULT": {
                "my_ip": "127.0.0.1",
                "host": COMPUTE_HOST,
                "state_path": home / "state",
                "log_dir": "",
                "compute_driver": "fake.FakeDriver",
                "transport_url": self.messages_url,
                "use_cow_images": False,
                "block_device_allocate_retries_interval": 1,
            },
            "api": {"auth_strategy": "keystone"},
            "wsgi": {"api_paste_config": home / "api-paste.ini"},
            "api_database": self._database("nova_api"),
            "database": self._database("nova"),
            "oslo_concurrency": {"lock_path": home / "locks"},
            "keystone_authtoken": self._checks_tokens("nova"),
            "service_user": {"send_service_user_token": True, **self._login("nova")},
            "placement": self._login("nova"),
            "neutron": self._login("nova"),
            "cinder": {"catalog_info": "block-storage:cinder:publicURL", "os_region_name": REGION},
            "vnc": {"enabled": False},
            "conductor": {"workers": 1},
            "scheduler": {"workers": 1},
            "filter_scheduler": {"enabled_filters": "ComputeFilter"},
        }

    def _placement(self) -> Sections:
        return {
            "DEFAULT": {"log_dir": ""},
            "api": {"auth_strategy": "keystone"},
            "placement_database": self._database("placement"),
            "keystone_authtoken": self._checks_tokens("nova"),
        }
