"""The commands that do something, the errors, the help and its page."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import click
import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from framework.cli import reference
from framework.cli.root import COMMANDS, root
from framework.doctor import examine, holding, of_node, of_platform, soundness
from framework.failures import EXIT_CODES
from framework.rest.app import create_app
from framework.rest.server import serve
from framework.service import DriftOrder, DriftReport, ImportOrder, PlatformDrift, VolumeOrder
from storage.drift import DriftKind, NodeMount, drift
from storage.errors import NodeError
from storage.inventory import open_ledger, written
from storage.lifecycle import ClaimState
from storage.model import ClaimId, ExternalId, Profile, ReclaimPolicy
from storage.node.commands import Output
from storage.node.steps import Machine
from storage.platforms.base import Capabilities, Finding, VolumeReport
from tests.conftest import leave_out
from tests.unit.front import COUNTER, NOW, WAITING, FakeBroker, fill

ROOT = Path(__file__).parents[2]
Polly = Callable[..., Result]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[FakeBroker]:
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db", clock=lambda: NOW)
    fill(ledger)
    yield FakeBroker(ledger)
    ledger.close()


@pytest.fixture
def polly(broker: FakeBroker) -> Iterator[Polly]:
    server = serve(create_app(broker, broker.ledger, token=None), "127.0.0.1", 0, token=None)

    def run(*args: str, input: str | None = None) -> Result:  # noqa: A002 - click's name
        environment = {"POLLY_BROKER": server.url, "POLLY_DATABASE": "", "LOGNAME": "jane"}
        return CliRunner().invoke(root, args, input=input, env=environment, prog_name="polly")

    yield run
    server.stop()


def drifted(*, mended: bool = False) -> DriftReport:
    gone = drift(DriftKind.VOLUME_GONE, "disks", "/db#0/data", ledger="AVAILABLE, 64 MiB", found="no such volume")
    found = (drift(DriftKind.SIZE_LARGER, "disks", "logs", ledger="64 MiB", found="80 MiB"), replace(gone, mended=mended))
    return DriftReport(started_at=NOW, ended_at=NOW, platforms=(PlatformDrift(platform="disks", state="DONE", listed=2, found=found),))


def test_drift_shows_the_worst_first_and_what_to_do(polly: Polly, broker: FakeBroker) -> None:
    broker.drifted = drifted()
    result = polly("drift", "--platform", "disks")
    assert broker.calls == [("drift", DriftOrder(platform="disks"), "operator:jane")]
    assert result.exit_code == 1
    first, second = result.stdout.splitlines()[1:]
    assert first.startswith("DANGER\tVOLUME_GONE\tdisks /db#0/data\tAVAILABLE, 64 MiB\tno such volume\tFind out who deleted it")
    assert "Then: polly volume delete. With --apply: set it FAULTED" in first
    assert second.startswith("INFO\tSIZE_LARGER")
    assert "is no node of the ledger" in result.stderr


def test_drift_that_is_mended_or_harmless_is_no_failure(polly: Polly, broker: FakeBroker) -> None:
    broker.drifted = drifted(mended=True)
    result = polly("drift", "--apply")
    assert (broker.calls, result.exit_code) == ([("drift", DriftOrder(apply=True), "operator:jane")], 0)
    assert "Mended: set it FAULTED" in result.stdout
    broker.drifted = DriftReport(started_at=NOW, platforms=(PlatformDrift(platform="disks", state="DONE", listed=3),))
    assert "No drift: what 1 platform listed (3 volumes) is as the ledger says." in polly("drift").stderr


def test_a_platform_that_could_not_be_compared_is_a_failure(polly: Polly, broker: FakeBroker) -> None:
    broker.drifted = DriftReport(platforms=(PlatformDrift(platform="disks", state="FAILED", error="it does not answer"),))
    result = polly("drift")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[0] == "disks could not be compared: it does not answer"


def test_drift_in_json_says_which_platform_failed_and_what_was_left_out(polly: Polly, broker: FakeBroker) -> None:
    failed = PlatformDrift(platform="cloud", state="FAILED", listed=7, error="it does not answer")
    broker.drifted = replace(drifted(mended=True), platforms=(*drifted(mended=True).platforms, failed))
    result = polly("drift", "-o", "json", "--hostname", "elsewhere")
    assert (result.exit_code, result.stderr) == (1, "")
    document = json.loads(result.stdout)
    assert document["platforms"] == [
        {"platform": "disks", "state": "DONE", "listed": 2, "compared": 0, "error": "", "more": 0},
        {"platform": "cloud", "state": "FAILED", "listed": 7, "compared": 0, "error": "it does not answer", "more": 0},
    ]
    why_not = "elsewhere is no node of the ledger; on an agent, its mounts are compared too."
    assert document["node"] == {"hostname": "elsewhere", "compared": False, "why_not": why_not}
    assert [(it["severity"], it["kind"], it["mended"]) for it in document["differences"]] == [
        ("DANGER", "VOLUME_GONE", True),
        ("INFO", "SIZE_LARGER", False),
    ]


def test_differences_beyond_those_that_are_shown_are_a_failure(polly: Polly, broker: FakeBroker) -> None:
    (part,) = drifted(mended=True).platforms
    broker.drifted = DriftReport(platforms=(replace(part, more=3),))
    result = polly("drift")
    assert result.exit_code == 1
    assert "disks has 3 more differences; mend these first" in result.stderr


def test_an_agents_own_mounts_are_compared_too(polly: Polly, broker: FakeBroker, tmp_path: Path) -> None:
    with broker.ledger.begin("mesos") as tx:
        tx.advance(ClaimId("c1"), 1, ClaimState.ATTACHING)
        tx.advance(ClaimId("c1"), 1, ClaimState.MOUNTED)
    result = polly("drift", "--hostname", "agent1", "--staging-dir", str(tmp_path))
    if os.geteuid() == 0:
        assert (result.exit_code, result.stdout.splitlines()[1].split("\t")[:3]) == (
            1,
            ["DANGER", "MOUNT_MISSING", "local /counter#0/data"],
        )
    else:
        assert "Only root sees the mounts" in result.stderr


def test_a_mount_of_a_claim_that_the_broker_does_not_know_is_a_danger_and_no_error(
    polly: Polly, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stray = NodeMount(claim_id=ClaimId("gone"), target=f"{tmp_path}/gone", source="/dev/loop9", pids=(7,))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("storage.node.mounted.mounted", lambda staging_dir: [stray])
    result = polly("drift", "--hostname", "agent1", "--staging-dir", str(tmp_path))
    assert (result.exit_code, result.stderr) == (1, "")
    assert result.stdout.splitlines()[1].startswith("DANGER\tMOUNT_STRAY\tagent1: claim gone\tno such claim\t/dev/loop9 on ")


def test_foreign_volumes_are_listed_as_they_were_last_seen(polly: Polly, broker: FakeBroker) -> None:
    seen = VolumeReport(external_id=ExternalId("vol-9"), pool="main", size_mib=2048, serial="vol9", name="old database", zone="z1")
    assert "polly drift --platform local" in polly("volume", "foreign", "--platform", "local").stderr
    with broker.ledger.begin("test") as tx:
        tx.sight("local", [(seen, written(seen))])
    assert polly("volume", "foreign", "--platform", "local").stdout.splitlines()[1] == "vol-9\told database\t2 GiB\tmain\tz1\t-\t-"
    unknown = polly("volume", "foreign", "--platform", "nope")
    assert (unknown.exit_code, unknown.stderr.splitlines()[0]) == (4, "polly: There is no platform nope.")


def test_run_an_app(polly: Polly, broker: FakeBroker, tmp_path: Path) -> None:
    file = tmp_path / "app.json"
    file.write_text(json.dumps({**COUNTER, "id": "/new"}))
    result = polly("app", "run", str(file))
    assert (result.exit_code, result.stdout) == (0, "App /new is taken up: 1 instance wanted.\n")
    assert "polly explain /new" in result.stderr
    assert broker.calls == [("run", "/new", "operator:jane")]
    assert json.loads(polly("app", "run", "-", "-o", "json", input='{"id": "/other", "cmd": "x"}').stdout)["id"] == "/other"


@pytest.mark.parametrize(
    ("text", "code", "sentence"),
    [
        ('{"id": "/x", "cmd": "x", "mems": 1}', 2, "mems: is no field here (its value is 1; did you mean 'mem'?).\n"),
        ('{"id": "/x", "cmd": "x", "container": {"docker": {"image": "x"}}}', 2, "Docker images"),
        ("{", 2, "not JSON"),
        (json.dumps(COUNTER), 5, "App /counter exists already."),
    ],
)
def test_an_app_that_is_refused(polly: Polly, text: str, code: int, sentence: str) -> None:
    result = polly("app", "run", "-", input=text)
    assert (result.exit_code, result.stdout) == (code, "")
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_scale_and_kill(polly: Polly, broker: FakeBroker) -> None:
    assert "instances  3" in polly("app", "scale", "counter", "3").stdout
    asked = polly("app", "kill", "/counter", input="n\n")
    assert (asked.exit_code, "Kill /counter (1 task; 1 volume kept)? " in asked.stderr) == (130, True)
    with broker.ledger.begin("test") as tx:
        tx.put_profiles([Profile(name="fast", platforms=("local",), reclaim=ReclaimPolicy.DELETE)])
    assert "(1 task; 1 volume DELETED with its data)? " in polly("app", "kill", "/counter", input="n\n").stderr
    assert polly("app", "kill", "/counter", "-y").exit_code == 0
    assert broker.calls == [("scale", "/counter", 3, "operator:jane"), ("delete", "/counter", "operator:jane")]
    assert polly("app", "scale", "counter", "-1").exit_code == 2


def test_an_app_without_a_running_task_is_not_called_running(polly: Polly, broker: FakeBroker) -> None:
    polly("app", "scale", "counter", "3")
    states = [polly("app", "list").stdout.splitlines()[1].split("\t")[3]]
    assert "2 instances waiting; polly explain /counter says why." in polly("app", "show", "counter").stderr
    broker.held_back = {"/counter": 2}
    states.append(polly("app", "list").stdout.splitlines()[1].split("\t")[3])
    assert states == ["WAITING", "DELAYED"]
    assert json.loads(polly("app", "show", "counter", "-o", "json").stdout)["state"] == "DELAYED"


def test_explain_and_offers(polly: Polly, broker: FakeBroker) -> None:
    broker.waiting = (WAITING,)
    text = polly("explain", "counter").stdout
    assert "9 in the wrong zone; for example, agent1 is in z1, the volume in z2" in text
    assert json.loads(polly("explain", "counter", "-o", "json").stdout)["waiting"][0]["offers_seen"] == 12
    row = polly("offers").stdout.splitlines()[1].split("\t")
    assert row[:7] == ["agent1", "z1", "4", "2 GiB", "0 MiB", "31000-32000", "fast@local/main 10 GiB, 1 volume"]
    (offer,) = json.loads(polly("offers", "-o", "json").stdout)
    assert [resource["name"] for resource in offer["resources"]] == ["cpus", "mem", "ports", "disk", "disk"]
    assert offer["resources"][0] == {"name": "cpus", "type": "SCALAR", "scalar": {"value": 4.0}}


def test_volumes_by_hand(polly: Polly, broker: FakeBroker) -> None:
    assert "asked for" not in polly("volume", "create", "a", "--profile", "fast", "--size", "1GiB").stdout
    assert "1000 MiB, its platform makes more" in polly("volume", "create", "e", "--profile", "fast", "--size", "1000MiB").stdout
    assert polly("volume", "create", "b", "--profile", "fast", "--snapshot", "n1").exit_code == 0
    assert polly("volume", "create", "c", "--profile", "fast", "--from-volume", "v2").exit_code == 0
    assert polly("volume", "create", "c", "--profile", "fast").exit_code == 2
    both = polly("volume", "create", "c", "--profile", "fast", "--from-volume", "v2", "--snapshot", "n1")
    assert (both.exit_code, "--snapshot or --from-volume, not both" in both.stderr) == (2, True)
    assert polly("volume", "create", "c", "--profile", "fast", "--size", "much").exit_code == 2
    polly("volume", "import", "x-9", "--platform", "local", "--name", "d", "--profile", "fast")
    assert "2 GiB" in polly("volume", "expand", "v2", "--size", "2GiB").stdout
    assert json.loads(polly("volume", "snapshot", "v2", "--name", "s", "-o", "json").stdout)["name"] == "s"
    assert polly("volume", "delete", "hand2", input="y\n").exit_code == 0
    assert polly("snapshot", "delete", "n1", "-y").exit_code == 0
    jane = "operator:jane"
    assert broker.calls == [
        ("create", VolumeOrder(name="a", profile="fast", size_mib=1024), jane),
        ("create", VolumeOrder(name="e", profile="fast", size_mib=1000), jane),
        ("create", VolumeOrder(name="b", profile="fast", snapshot="n1"), jane),  # type: ignore[arg-type]  # only what the test needs of it
        ("create", VolumeOrder(name="c", profile="fast", source="v2"), jane),
        ("import", ImportOrder(platform="local", external_id="x-9", name="d", profile="fast"), jane),
        ("expand", "v2", 2048, jane),
        ("snapshot", "v2", "s", jane),
        ("delete volume", "v2", jane),
        ("delete snapshot", "n1", jane),
    ]


def test_release_a_claim(polly: Polly, broker: FakeBroker) -> None:
    assert polly("claim", "release", "c1").exit_code == 2
    refused = polly("claim", "release", "c1", "--because", "it burnt", input="n\n")
    assert refused.exit_code == 130
    assert "on agent1 (agent S1) surely gone? If it still writes, the data of volume /counter#0/data is lost." in refused.stderr
    assert "volume /counter#0/data may be claimed again" in polly("claim", "release", "c1", "--because", "it burnt", "-y").stdout
    assert broker.calls == [("release", "c1", "it burnt", "operator:jane")]
    assert polly("claim", "release", "none", "--because", "x", "-y").exit_code == 4


def test_doctor(polly: Polly, broker: FakeBroker, tmp_path: Path) -> None:
    assert "framework polly F1" in polly("doctor").stdout
    broker.findings = [Finding(ok=False, subject="mesos", message="not registered", mend="Check --master.")]
    result = polly("doctor")
    assert result.exit_code == 1
    assert "MEND\tmesos\tnot registered\tCheck --master." in result.stdout
    broker.findings = [Finding(ok=True, subject="mesos", message="registered", mend="Check --master.")]
    assert "ok\tmesos\tregistered\t-" in polly("doctor").stdout
    config = tmp_path / "polly.toml"
    config.write_text(f'[platforms.local]\nkind = "local"\nfolder = "{tmp_path}/none"\n[profiles.fast]\nplatforms = ["local"]\n')
    result = CliRunner().invoke(root, ["doctor", "--config", str(config), "--database", f"sqlite:///{tmp_path}/none.db", "-o", "json"])
    assert result.exit_code == 1
    subjects = {finding["subject"] for finding in json.loads(result.stdout) if not finding["ok"]}
    assert "ledger" in subjects


def test_doctor_says_what_a_node_needs_for_a_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda program, path: None)
    findings = list(of_node("nas", Capabilities(device="nfs", identity="nobody")))
    assert [(finding.ok, finding.subject) for finding in findings] == [(True, "platform nas"), (False, "platform nas")]
    assert findings[0].message.startswith("what it calls a node comes from nobody; this machine does not say")
    assert (findings[1].message.split()[0], findings[1].mend) == ("mount.nfs", "On Debian: apt-get install nfs-common")
    assert list(of_node("disks", Capabilities())) == []


def test_doctor_says_that_an_agent_here_could_hold_no_task() -> None:
    def run(*words: object, **_: object) -> Output:
        raise NodeError(command="unshare", target="", reason="Operation not permitted")

    ((ok, message),) = ((finding.ok, finding.message) for finding in holding(Machine(run=run)))
    assert ok
    assert message.startswith(
        "an agent here could run no task (unshare failed on : Operation not permitted.); its container needs CAP_SYS_ADMIN"
    )
    assert list(holding(Machine(run=lambda *_, **__: Output(code=0, out="", err="")))) == []


def test_config_check(tmp_path: Path) -> None:
    file = tmp_path / "polly.toml"
    file.write_text("[profiles.fast]\n")
    assert CliRunner().invoke(root, ["config", "check", str(file)]).stdout.endswith("platforms none; profiles fast\n")
    file.write_text("[profiles.fast]\nfilesystem = 'ntfs'\n")
    result = CliRunner().invoke(root, ["config", "check", str(file)])
    assert (result.exit_code, "profiles.fast.filesystem" in result.stderr) == (2, True)
    result = CliRunner().invoke(root, ["config", "check", "/nowhere/polly.toml"])
    sentence, advice = result.stderr.splitlines()
    assert (result.exit_code, sentence) == (2, "polly: The configuration /nowhere/polly.toml cannot be read: No such file or directory.")
    assert "docs/operating.md" in advice


def test_config_check_refuses_what_a_broker_would_not_start_with(tmp_path: Path) -> None:
    file = tmp_path / "polly.toml"
    file.write_text(
        f'[platforms.disks]\nkind = "local"\nroot = "{tmp_path}"\nformat = "folder"\n'
        '[profiles.all]\nplatforms = ["disks"]\naccess_mode = "MULTI_NODE_MULTI_WRITER"\n'
    )
    result = CliRunner().invoke(root, ["config", "check", str(file)])
    assert result.exit_code == 2
    assert "profiles.all.access_mode is 'MULTI_NODE_MULTI_WRITER': platform disks has" in result.stderr


def test_the_doctor_tells_of_two_blocks_that_are_one(tmp_path: Path) -> None:
    (tmp_path / "default").mkdir()
    block = f'kind = "local"\nroot = "{tmp_path}"\nformat = "folder"\n'
    config = tmp_path / "polly.toml"
    config.write_text(f"[platforms.a]\n{block}[platforms.b]\n{block}")
    told = [finding for finding in examine(config=config) if "are one" in finding.message]
    assert [(finding.ok, finding.subject) for finding in told] == [(False, "config")]
    assert "pool default" in told[0].message


def test_the_doctor_tells_of_a_profile_that_no_pool_qualifies_for(tmp_path: Path) -> None:
    (tmp_path / "default").mkdir()
    config = tmp_path / "polly.toml"
    platform = f'[platforms.disks]\nkind = "local"\nroot = "{tmp_path}"\nformat = "folder"\n'
    config.write_text(f'{platform}[profiles.fast]\npools = ["ssd"]\n[profiles.slow]\npools = ["default"]\n')
    told = [finding for finding in examine(config=config) if "no pool qualifies" in finding.message]
    assert [finding.message for finding in told] == ["no pool qualifies for profile fast, so no volume of it can be made"]
    assert told[0].mend.endswith("the pools there are disks/default.")


def test_the_doctor_says_once_that_a_platform_is_ill_and_still_looks_at_its_profiles(tmp_path: Path) -> None:
    file = tmp_path / "polly.toml"
    file.write_text(
        f'[platforms.disks]\nkind = "local"\nroot = "{tmp_path}/none"\nformat = "folder"\n'
        '[profiles.all]\nplatforms = ["disks"]\naccess_mode = "MULTI_NODE_MULTI_WRITER"\n'
    )
    wrong = [finding for finding in examine(config=file) if not finding.ok and finding.subject != "node"]
    assert [finding.subject for finding in wrong] == ["platform disks", "config"]
    assert f"mkdir --mode 0700 {tmp_path}/none" in wrong[0].mend


def test_the_broker_command_only_parses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[object] = []
    monkeypatch.setattr("framework.broker.run", seen.append)
    token = tmp_path / "token"
    token.write_text("word")
    token.chmod(0o600)
    args = ["broker", "--master", "zk://a:1/m", "--role", "r", "--role", "s", "--principal", "p", "--secret-file", str(token)]
    args += ["--database", "sqlite:///x", "--config", "c.toml", "--listen", "[::1]:0", "--token-file", str(token)]
    result = CliRunner().invoke(root, args)
    assert result.exit_code == 0, result.output
    (options,) = seen
    # what the command hands on, kept as it came
    assert (options.master, options.roles, options.host, options.port, options.token) == ("zk://a:1/m", ("r", "s"), "::1", 0, "word")  # type: ignore[attr-defined]
    for wrong in (["--listen", "x"], ["--listen", "a:99999"], ["--principal", ""]):
        assert CliRunner().invoke(root, [*args, *wrong]).exit_code == 2
    assert len(seen) == 1


def test_a_broker_with_a_token(broker: FakeBroker, tmp_path: Path) -> None:
    server = serve(create_app(broker, broker.ledger, token="right"), "127.0.0.1", 0, token="right")
    token = tmp_path / "token"
    token.write_text("right")
    token.chmod(0o600)
    try:
        refused = CliRunner().invoke(root, ["app", "list", "--broker", server.url])
        assert refused.exit_code == 3
        assert "--token-file FILE" in refused.stderr
        assert CliRunner().invoke(root, ["app", "list", "--broker", server.url, "--token-file", str(token)]).exit_code == 0
    finally:
        server.stop()


# --- errors, help, completion ---------------------------------------------------------------------------


def test_a_defect_is_a_sentence_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("framework.cli.options.open_broker", lambda *_: 1 / 0)
    result = CliRunner().invoke(root, ["app", "list", "--database", ""])
    assert result.exit_code == 1
    assert "polly: internal error: ZeroDivisionError" in result.stderr
    assert "Traceback" not in result.stderr


def test_usage_errors_and_help() -> None:
    assert CliRunner().invoke(root, ["nonsense"]).exit_code == 2
    assert CliRunner().invoke(root, ["app", "run", "/no/such/file"]).exit_code == 2
    text = CliRunner().invoke(root, ["--help"]).stdout
    assert all(name in text for name in COMMANDS)
    assert CliRunner().invoke(root, ["--version"]).stdout.rstrip().endswith(", plain Python")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    assert "_POLLY_COMPLETE" in CliRunner().invoke(root, ["completion", shell]).stdout


def test_completion_completes() -> None:
    environment = {**os.environ, "_POLLY_COMPLETE": "bash_complete", "COMP_WORDS": "polly volume list --state ", "COMP_CWORD": "4"}
    code = "from framework.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert "plain,available" in done.stdout, done.stderr


def test_a_closed_pipe_is_silent() -> None:
    code = "from framework.cli import main; main()"
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", code, "--help"]
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(("target", "status"), [("/dev/full", 1), ("&-", 0)])
def test_an_answer_that_cannot_be_written_is_no_defect(target: str, status: int) -> None:
    command = f"{shlex.quote(sys.executable)} -c 'from framework.cli import main; main()' --version >{target}"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    sentence = "polly: The answer cannot be written to standard output: No space left on device.\n"
    assert (done.returncode, done.stderr) == (status, sentence if status else "")


def test_docs_cli_is_what_the_commands_say() -> None:
    assert (ROOT / "docs/cli.md").read_text("utf-8") == reference.page(), "make it again: python -m framework.cli.reference > docs/cli.md"


def test_the_page_has_every_command_and_exit_status() -> None:
    page = reference.page()
    assert all(f"## polly {name}" in page for name in COMMANDS)
    assert all(f"| {code} |" in page for code in EXIT_CODES)


# --- starting fast ----------------------------------------------------------------------------------------


def test_the_list_of_commands_says_what_each_says_of_itself() -> None:
    context = click.Context(root, info_name="polly")
    loaded = {name: root.get_command(context, name) for name in root.list_commands(context)}
    assert all(command is not None and command.help for command in loaded.values())
    text = CliRunner().invoke(root, ["--help"]).stdout
    assert all(f"  {name} " in text for name in loaded)


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("framework.cli.root", ("msgspec", "http.client", "rich")),
        ("framework.cli." + ", framework.cli.".join(("apps", "claims", "events", "inventory", "offers", "snapshots", "volumes")), ()),
    ],
)
def test_commands_that_ask_a_broker_load_neither_a_database_nor_a_web_framework(modules: str, heavy: tuple[str, ...]) -> None:
    heavy += ("sqlalchemy", "alembic", "fastapi", "uvicorn", "httpx", "pymesos", "kazoo", "asyncio")
    program = f"import sys, {modules}; print(*(set(sys.modules) & set({heavy!r})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("volumes",), "No such command 'volumes'. Did you mean 'volume'?"),
        (("volume", "create"), "Missing argument 'NAME'."),
        (("volume", "list", "--label", "x"), "Invalid value for '--label': 'x' is not NAME=VALUE."),
        (("app", "run", "/nowhere/app.json"), "Invalid value for 'FILE': '/nowhere/app.json': No such file or directory."),
        (("volume", "create", "v"), "Missing option '--profile'."),
    ],
)
def test_a_wrong_command_line_is_a_sentence_with_advice(args: tuple[str, ...], sentence: str) -> None:
    result = CliRunner().invoke(root, args, prog_name="polly")
    assert (result.exit_code, result.stdout) == (2, "")
    first, advice = result.stderr.splitlines()
    assert first == f"polly: {sentence}"
    assert advice.startswith("What it takes is shown by: polly ")


@pytest.mark.parametrize("url", ["nonsense", "ftp://host", "http://", "http://host:port", "http://h:0", "http://a b", "http://[::1"])
def test_what_is_no_url_of_a_broker(url: str) -> None:
    result = CliRunner().invoke(root, ["app", "list", "--broker", url], env={"POLLY_DATABASE": ""})
    assert result.exit_code == 2
    assert "it is a URL such as http://127.0.0.1:7070" in result.stderr


def test_something_else_on_the_brokers_port() -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as other:
        thread = Thread(target=other.handle_request)
        thread.start()
        result = CliRunner().invoke(root, ["app", "list", "--broker", f"http://127.0.0.1:{other.server_port}"], env={"POLLY_DATABASE": ""})
        thread.join()
    assert result.exit_code == 7
    assert "what answers there (HTTP status 200) is not Polly's API" in result.stderr


def test_what_the_ledger_counts_and_whose_finding_it_is() -> None:
    (fine,) = soundness({"held_twice": 0, "pool_drift": 0})
    assert fine.ok
    (wrong,) = soundness({"held_twice": 2, "pool_drift": 0})
    assert (wrong.ok, wrong.message) == (False, "held twice: 2; it must be 0")
    (found,) = of_platform("disks", [Finding(ok=False, subject="/srv/x", message="it is not there", mend="mkdir /srv/x")])
    assert (found.subject, found.message, found.mend) == ("platform disks", "/srv/x: it is not there", "mkdir /srv/x")


def test_bash_completes_commands_options_and_values() -> None:
    asked = ("vol", "volume list --sta", "volume list --state pl")
    lines = ['eval "$(polly completion bash)"']
    lines += [f"COMPREPLY=(); COMP_WORDS=(polly {words}); COMP_CWORD={len(words.split())}; complete_it" for words in asked]
    lines.insert(1, "complete_it() { _polly_completion polly; echo ${COMPREPLY[@]}; }")
    assert in_shell("bash", "-c", "\n".join(lines)).split() == ["volume", "--state", "planned"]


def test_zsh_completes_commands_and_values() -> None:
    asked = ("vol", "volume list --state pl")
    lines = [
        "compdef() { print -r -- $* }",
        'eval "$(polly completion zsh)"',
        "_describe() { print -rl -- $completions_with_descriptions }",
        "compadd() { print -rl -- $completions }",
        *(f"words=(polly {words}); CURRENT=$#words; _polly_completion" for words in asked),
    ]
    registered, *completed = in_shell("zsh", "-f", "-c", "\n".join(lines)).splitlines()
    assert registered == "_polly_completion polly"
    assert completed == ["volume:Look at, create, delete, snapshot, expand...", "planned"]


def test_fish_completes_commands_and_values(tmp_path: Path) -> None:
    asked = ("vol", "volume list --state pl")
    lines = ["polly completion fish | source", *(f'complete -C "polly {words}"' for words in asked)]
    assert in_shell("fish", "-c", "\n".join(lines), HOME=str(tmp_path)).splitlines() == [
        "volume\tLook at, create, delete, snapshot, expand...",
        "planned",
    ]


def in_shell(shell: str, *args: str, **environment: str) -> str:
    if not shutil.which(shell):
        leave_out(f"needs {shell}")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        [shell, *args], env={**os.environ, "PATH": path, **environment}, capture_output=True, text=True, check=True
    ).stdout
