"""OpenStack's databases and Keystone's keys, as the services' own tools make them: made once, kept in the cache, laid out at each start.

What is another at each start, addresses and databases' names, is kept as marks in their SQL. It knows no running service.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests.peers import _openstack_files as files
from tests.peers.venvs import alone
from tests.servers import Postgres

KEYS: Final = ("keys", "credential")
NOBODYS: Final = files.Ports(**{name: 60001 + number for number, name in enumerate(files.Ports.__annotations__)})
"""What stands for the ports while no service runs."""
HOST: Final = "INSERT INTO host_mappings (created_at, cell_id, host) SELECT now(), id, :'host' FROM cell_mappings WHERE name = 'cell1'"
"""What Nova would write when it discovers its only host, which at each start would take it as long as all that is here."""


def prepared(venv: Path) -> Path:
    """The folder with what was made, made if it is not there; another configuration makes another one."""
    wanted = b"".join(Path(source).read_bytes() for source in (__file__, files.__file__)) + str(Postgres.programs()).encode()
    folder = venv / f"databases-{hashlib.sha256(wanted).hexdigest()[:16]}"
    with alone("openstack-databases"):
        if not folder.exists():
            print(f"Making OpenStack's databases in {folder}", flush=True)
            with tempfile.TemporaryDirectory(prefix="polly-openstack-") as made:
                _make(Path(made), venv)
                shutil.copytree(Path(made) / "kept", folder.with_suffix(".new"), dirs_exist_ok=True)
            folder.with_suffix(".new").rename(folder)
    return folder


def create(postgres: Postgres) -> dict[str, str]:
    """Empty databases: SQLAlchemy's URL for each of DATABASES."""
    return {name: postgres.url(postgres.create_database()).replace("+psycopg:", "+psycopg2:") for name in files.DATABASES}


def lay_out(folder: Path, postgres: Postgres, to: files.Files) -> None:
    """Fills the databases and writes Keystone's keys."""

    def fill(name: str) -> None:
        text = (folder / f"{name}.sql").read_text()
        for mark, value in _marks(to).items():
            text = text.replace(mark, value)
        postgres.load(_name(to, name), text)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(fill, files.DATABASES))
    for name in KEYS:
        shutil.copytree(folder / name, to.root / "keystone" / name)


def _make(root: Path, venv: Path) -> None:
    postgres = Postgres()
    try:
        made = files.Files(root=root, ports=NOBODYS, venv=venv, databases=create(postgres.start()))
        made.write()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda commands: _run(made, commands), _commands(made)))
        postgres.load(_name(made, "nova_api"), HOST, host=files.COMPUTE_HOST)
        (root / "kept").mkdir()
        for name in files.DATABASES:
            text = postgres.dump(_name(made, name))
            for mark, value in _marks(made).items():
                text = text.replace(value, mark)
            (root / "kept" / f"{name}.sql").write_text(text)
        for name in KEYS:
            shutil.copytree(root / "keystone" / name, root / "kept" / name)
    finally:
        postgres.stop()


def _marks(made: files.Files) -> Mapping[str, str]:
    values = {
        "keystone": made.keystone_url,
        "messages": made.messages_url,
        **{f"{name} database": url for name, url in made.databases.items()},
    }
    return {f"<{name}>": value for name, value in values.items()}


def _name(made: files.Files, name: str) -> str:
    return made.databases[name].rpartition("/")[2]


def _commands(made: files.Files) -> Sequence[Sequence[Sequence[object]]]:
    root, url = made.root, made.keystone_url
    keystone = ["keystone-manage", "--config-file", root / "keystone/keystone.conf"]
    nova = ["nova-manage", "--config-file", root / "nova/nova.conf"]
    as_root = ["--keystone-user", "root", "--keystone-group", "root"]
    urls = ["--bootstrap-public-url", url, "--bootstrap-internal-url", url, "--bootstrap-admin-url", url]
    return (
        (
            [*nova, "api_db", "sync"],
            [*nova, "cell_v2", "map_cell0", "--database_connection", made.databases["nova_cell0"]],
            [*nova, "cell_v2", "create_cell", "--name", "cell1"],
            [*nova, "db", "sync"],
        ),
        (
            [*keystone, "db_sync"],
            [*keystone, "fernet_setup", *as_root],
            [*keystone, "credential_setup", *as_root],
            [*keystone, "bootstrap", "--bootstrap-password", files.ADMIN_PASSWORD, "--bootstrap-region-id", files.REGION, *urls],
        ),
        (["cinder-manage", "--config-file", root / "cinder/cinder.conf", "db", "sync"],),
        (["placement-manage", "--config-file", root / "placement/placement.conf", "db", "sync"],),
    )


def _run(made: files.Files, commands: Sequence[Sequence[object]]) -> None:
    for command in commands:
        arguments = [str(made.venv / "bin" / str(command[0])), *map(str, command[1:])]
        ended = subprocess.run(arguments, env=made.environment, capture_output=True, text=True)
        if ended.returncode:
            raise RuntimeError(f"{' '.join(arguments)}: {ended.stdout[-1000:]} {ended.stderr[-2000:]}")
