"""What VBoxManage writes, read: lists of media, a VM's settings, extra data, and its refusals. Runs nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from msgspec import Struct

from storage.platforms.virtualbox.failures import Fault, Unreachable
from storage.platforms.virtualbox.host import Controller, Medium, Plug, Vm

COLUMN: Final = 16
"""Where the values of a medium's listing begin."""
ID: Final = "[0-9a-f-]{36}"
FIRST: Final = ("UUID", "Parent UUID", "State")
"""What is written of a medium before its description, which may be any text, of several lines; all else comes after it."""
KEY: Final = r'(?:"(?:[^"\\]|\\.)*"|[^="\n]+)'
"""Of a VM's setting, as a pattern."""
E_FAIL: Final = 0x80004005
NO_SERVER: Final = ("Failed to create the VirtualBox object", "Failed to initialize COM", "NS_ERROR_SOCKET_FAIL", "NS_ERROR_CALL_FAILED")
BUSES: Final = {"IntelAhci": "sata", "PIIX3": "ide", "PIIX4": "ide", "ICH6": "ide", "VirtioSCSI": "virtioscsi", "NVMe": "pcie"}
UNITS: Final = {"Bytes": 1 / (1 << 20), "KBytes": 1 / 1024, "MBytes": 1, "GBytes": 1024}


def refusal(errors: str) -> Fault | Unreachable:
    """What made it fail, with VirtualBox's code where it says one."""
    said = [line.removeprefix("VBoxManage: error: ") for line in errors.splitlines() if not re.match(r"\d+%", line)]
    text = " ".join(line for line in said if line.strip() and not line.startswith(("Details:", "Context:")))
    if any(word in errors for word in NO_SERVER):
        return Unreachable(f"VBoxManage: {text[-300:]}")
    found = re.search(r"(?:Details: code|Code) \w+ \(0x([0-9a-fA-F]{8})\)", errors)
    return Fault(int(found[1], 16) if found else E_FAIL, text[-400:] or "VBoxManage failed and said nothing")


class User(Struct, frozen=True, kw_only=True):
    """A VM that is listed with a medium."""

    vm: str
    medium: str
    """The one that it is listed with: a differencing one, where that stands on the medium."""
    is_sure: bool
    """False for one with snapshots which had it: the list does not say whether the VM itself has it now."""


class Listed(Struct, frozen=True, kw_only=True):
    """A medium as it is listed; which of its users have it now is still to be seen."""

    medium: Medium
    users: tuple[User, ...] = ()


def media(text: str) -> Sequence[Listed]:
    """The base media of a list or of one that was asked for, with the users of the differencing ones that stand on them."""
    blocks = re.split(rf"(?m)^(?=UUID: {{11}}{ID}$)", text)
    read = {fields["UUID"]: fields for block in blocks if block.startswith("UUID: ") for fields in [_fields(block)]}
    users: dict[str, list[User]] = {uuid: [] for uuid in read}
    for uuid in read:
        users[_base(uuid, read)] += _users(read[uuid])
    return [Listed(medium=_medium(read[uuid]), users=tuple(users[uuid])) for uuid in read if _base(uuid, read) == uuid]


def _base(uuid: str, read: Mapping[str, Mapping[str, str]]) -> str:
    parent = read[uuid].get("Parent UUID", "base")
    return _base(parent, read) if parent in read else uuid


def _fields(block: str) -> dict[str, str]:
    """Each key with its value; the VMs that use it, which go over several lines, become one value."""
    fields: dict[str, str] = {}
    last = ""
    for line in block.split("\n"):
        found = re.match(r"([A-Z][A-Za-z ]*):( *)(.*)", line)
        if found and len(found[1]) + 1 + len(found[2]) == COLUMN:
            last = found[1]
            if last not in FIRST or last not in fields:
                fields[last] = found[3]
        elif last in ("In use by VMs", "Access Error"):
            fields[last] += f"\n{line}"
    return fields


def _users(fields: Mapping[str, str]) -> Sequence[User]:
    lines = fields.get("In use by VMs", "").split("\n")
    found = [match for line in lines if (match := re.search(rf"\(UUID: ({ID})\)( \[.*\])?$", line))]
    return [User(vm=match[1], medium=fields["UUID"], is_sure=not match[2]) for match in found]


def _medium(fields: Mapping[str, str]) -> Medium:
    state = fields.get("State", "")
    return Medium(
        uuid=fields["UUID"],
        location=fields.get("Location", ""),
        size_mib=_mib(fields.get("Capacity", "")),
        on_disk_mib=_mib(fields.get("Size on disk", "")),
        kind=fields.get("Type", "").partition(" ")[0],
        has_heirs="Child UUIDs" in fields,
        fault=fields.get("Access Error", state) if state in ("inaccessible", "not created") else "",
    )


def _mib(words: str) -> int:
    number, _, unit = words.partition(" ")
    return int(int(number) * UNITS.get(unit, 1)) if number.isdigit() else 0


def made(text: str) -> str:
    """The id of a medium that was created or cloned."""
    found = re.search(r"UUID: ([0-9a-f-]{36})", text)
    if found is None:
        raise Fault(E_FAIL, f"VBoxManage does not say which medium it made: {text[-200:]}")
    return found[1]


def settings(text: str) -> Mapping[str, str]:
    """The `key="value"` of a VM, each without its quotes. Of two with one key the first: what people write freely comes last."""
    said: dict[str, str] = {}
    for entry in _entries(text):
        if pair := re.fullmatch(rf"({KEY})=(.*)", entry, re.DOTALL):
            said.setdefault(_bare(pair[1]), _bare(pair[2]))
    return said


def _entries(text: str) -> Iterator[str]:
    """Names and descriptions may go over several lines, up to a quote that is not escaped."""
    entry = ""
    for line in text.split("\n"):
        entry = f"{entry}\n{line}" if entry else line
        opened = re.match(rf'{KEY}="', entry)
        if opened is None or re.search(r'(?<!\\)(\\\\)*"$', entry[opened.end() :]):
            yield entry
            entry = ""


def _bare(word: str) -> str:
    quoted = re.fullmatch(r'"(.*)"', word, re.DOTALL)
    return re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL) if quoted else word


def vm(said: Mapping[str, str]) -> Vm:
    state = said.get("VMState", "inaccessible").replace("-", "")
    return Vm(
        uuid=said.get("UUID", ""),
        name=said.get("name", ""),
        state="poweredoff" if state == "poweroff" else state,
        accessible="VMState" in said,
    )


def vm_ids(text: str) -> Sequence[str]:
    return re.findall(r"(?m)\{([0-9a-f-]{36})\}$", text)


def hardware(said: Mapping[str, str], *, cards: bool) -> frozenset[str]:
    return frozenset(value.lower() for key, value in said.items() if key.startswith("macaddress" if cards else "hardwareuuid"))


def controllers(said: Mapping[str, str]) -> Sequence[Controller]:
    numbers = [key.removeprefix("storagecontrollername") for key in said if key.startswith("storagecontrollername")]
    return [_controller(said, number) for number in numbers]


def _controller(said: Mapping[str, str], number: str) -> Controller:
    name = said[f"storagecontrollername{number}"]
    kind = said.get(f"storagecontrollertype{number}", "")
    ports = {port: said[key] for key in said for port in _ports(name, key)}
    return Controller(
        name=name,
        bus=BUSES.get(kind, kind.lower()),
        ports=int(said.get(f"storagecontrollerportcount{number}", "0")),
        taken=frozenset(port for port, medium in ports.items() if medium != "none"),
        media=frozenset(said[key] for key in said if re.fullmatch(re.escape(name) + r"-ImageUUID-\d+-\d+", key)),
    )


def _ports(name: str, key: str) -> Sequence[int]:
    """The port that a key such as `SATA-4-0` is of."""
    found = re.fullmatch(re.escape(name) + r"-(\d+)-\d+", key)
    return [int(found[1])] if found else []


def plug_of(said: Mapping[str, str], uuid: str) -> Plug | None:
    for key, value in said.items():
        found = re.fullmatch(r"(.+)-ImageUUID-(\d+)-(\d+)", key)
        if found and value == uuid:
            return Plug(controller=found[1], port=int(found[2]), device=int(found[3]))
    return None


def value(text: str) -> str:
    """Of one key of extra data; empty where it is not set."""
    found = re.match(r"Value: (.*)", text)
    return found[1].strip() if found else ""


def values(text: str) -> Mapping[str, str]:
    return {found[1]: found[2] for found in re.finditer(r"(?m)^Key: (.*?), Value: (.*)$", text)}
