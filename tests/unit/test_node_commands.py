"""Running tools: argument lists, the C locale, deadlines, and the tool's own words in the error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from storage.errors import NodeError
from storage.node.commands import run
from tests.support import eventually


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder first in PATH where a test puts a tool named `tool`."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path / "tool"


def script(tool: Path, body: str) -> None:
    tool.write_text(f"#!/bin/sh\n{body}\n")
    tool.chmod(0o755)


def test_paths_come_after_two_dashes_and_no_shell_reads_them(tool: Path) -> None:
    script(tool, 'for word in "$@"; do echo "[$word]"; done')

    said = run(["tool", "-x"], "-rf", "$(id); *")

    assert said.out == "[-x]\n[--]\n[-rf]\n[$(id); *]\n"


def test_the_environment_holds_the_c_locale_and_nothing_of_ours(tool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("SECRET", "1")
    script(tool, 'echo "$LC_ALL/$SECRET"')

    assert run(["tool"]).out == "C/\n"


def test_no_tool_is_taken_from_the_working_folder_which_is_the_tasks_own(tool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tool, "exit 0")
    monkeypatch.chdir(tool.parent)
    monkeypatch.setenv("PATH", ".::../x:")

    with pytest.raises(NodeError, match="tool failed on : this program is not installed"):
        run(["tool"])
    assert run(["true"]).code == 0


def test_the_error_has_the_code_and_the_last_words(tool: Path) -> None:
    script(tool, "echo out; echo first >&2; echo 'bad  magic' >&2; exit 8")

    with pytest.raises(NodeError, match="tool failed on /dev/x: exit code 8: first bad magic"):
        run(["tool"], "/dev/x")


def test_allowed_codes_are_answers(tool: Path) -> None:
    script(tool, "exit 2")

    assert run(["tool"], ok=(0, 2)).code == 2


def test_a_tool_that_does_not_end_is_killed(tool: Path, tmp_path: Path) -> None:
    script(tool, f"echo $$ > {tmp_path}/pid; exec sleep 60")

    with pytest.raises(NodeError, match=r"did not end within 0.2 s"):
        run(["tool"], timeout_s=0.2)

    pid = int((tmp_path / "pid").read_text())
    eventually(lambda: not Path(f"/proc/{pid}").exists(), 5.0, "the tool goes")


def test_a_missing_tool_is_named() -> None:
    with pytest.raises(NodeError, match=r"mkfs.nothing failed .*not installed"):
        run(["mkfs.nothing"], "/dev/x")


def test_a_tool_that_writes_dies_with_us(tool: Path, tmp_path: Path) -> None:
    script(tool, f"echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 60")
    child = os.fork()
    if child == 0:
        try:
            run(["tool"], writes=True)
        finally:
            os._exit(1)
    pid = int(eventually(lambda: (tmp_path / "pid").read_text(), 5.0, "the tool starts"))

    os.kill(child, 9)
    os.waitpid(child, 0)

    eventually(lambda: not _runs(pid), 5.0, "the tool dies too")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
