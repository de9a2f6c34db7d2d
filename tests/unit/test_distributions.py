"""What the two wheels hold that an installed Polly needs and that no import would miss at once."""

from __future__ import annotations

import zipfile
from pathlib import Path

from tests.wheels import build_wheel

PROJECT = Path(__file__).parents[2]


def contents(source: Path, target: Path, said: list[str] | None = None) -> dict[str, bytes]:
    words = build_wheel(source, target)
    if said is not None:
        said.append(words)
    with zipfile.ZipFile(next(target.glob("*.whl"))) as wheel:
        return {name: wheel.read(name) for name in wheel.namelist()}


def test_pollys_wheel_holds_its_types_its_migrations_and_its_commands(tmp_path: Path) -> None:
    files = contents(PROJECT, tmp_path)
    assert {f"{name}/py.typed" for name in ("framework", "offers", "storage", "executors")} <= files.keys()
    assert any(name.startswith("storage/migrations/versions/") for name in files)
    commands = next(text.decode() for name, text in files.items() if name.endswith("entry_points.txt"))
    assert "polly = framework.cli:main" in commands
    assert "polly-executor = executors.main:main" in commands
    assert not any(name.startswith(("tests/", "examples/", "packaging/")) for name in files)


def test_without_a_c_compiler_pollys_wheel_is_plain_python_and_its_build_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    assert not any(name.endswith(".so") for name in contents(PROJECT, tmp_path, said))
    assert next(tmp_path.glob("*.whl")).name.endswith("-py3-none-any.whl")
    assert "there is no C compiler /none/cc" in "".join(said)


def test_http_parsers_wheel_holds_its_module_its_types_and_its_version(tmp_path: Path) -> None:
    files = contents(PROJECT / "packaging" / "http-parser", tmp_path)
    assert {"http_parser/http.py", "http_parser/py.typed", "http_parser-0.10.0.dist-info/METADATA"} <= files.keys()
