"""VirtualBox's result codes, and which of Polly's errors each becomes. Both ways of calling it raise Fault and nothing else."""

from __future__ import annotations

from typing import Final

from storage.errors import PlatformError, PlatformUnavailable, Unsupported
from storage.platforms.verbs import verbs

NOT_FOUND: Final = 0x80BB0001
INVALID_VM_STATE: Final = 0x80BB0002
FILE_ERROR: Final = 0x80BB0004
INVALID_STATE: Final = 0x80BB0007
NOT_SUPPORTED: Final = 0x80BB0009
IN_USE: Final = 0x80BB000C
TIMEOUT: Final = 0x80BB0010
ABORTED: Final = 0x80004004
"""VBoxSVC is no more, or somebody has cancelled a copy."""

NAMES: Final = {
    NOT_FOUND: "VBOX_E_OBJECT_NOT_FOUND",
    INVALID_VM_STATE: "VBOX_E_INVALID_VM_STATE",
    0x80BB0003: "VBOX_E_VM_ERROR",
    FILE_ERROR: "VBOX_E_FILE_ERROR",
    0x80BB0005: "VBOX_E_IPRT_ERROR",
    0x80BB0006: "VBOX_E_PDM_ERROR",
    INVALID_STATE: "VBOX_E_INVALID_OBJECT_STATE",
    0x80BB0008: "VBOX_E_HOST_ERROR",
    NOT_SUPPORTED: "VBOX_E_NOT_SUPPORTED",
    0x80BB000A: "VBOX_E_XML_ERROR",
    0x80BB000B: "VBOX_E_INVALID_SESSION_STATE",
    IN_USE: "VBOX_E_OBJECT_IN_USE",
    0x80BB000D: "VBOX_E_PASSWORD_INCORRECT",
    0x80BB000E: "VBOX_E_MAXIMUM_REACHED",
    0x80BB000F: "VBOX_E_GSTCTL_GUEST_ERROR",
    TIMEOUT: "VBOX_E_TIMEOUT",
    0x80004001: "E_NOTIMPL",
    ABORTED: "E_ABORT",
    0x80004005: "E_FAIL",
    0x8000FFFF: "E_UNEXPECTED",
    0x80070005: "E_ACCESSDENIED",
    0x8007000E: "E_OUTOFMEMORY",
    0x80070057: "E_INVALIDARG",
}
PASSING: Final = frozenset({INVALID_STATE, TIMEOUT, ABORTED})
"""What another client does at this moment, or VBoxSVC's end; the same call may succeed later."""


class Trouble(Exception):
    """What went wrong with a call. Never leaves the adapter."""


class Fault(Trouble):
    """VirtualBox refused a call."""

    def __init__(self, code: int, text: str) -> None:
        self.code, self.text = code & 0xFFFFFFFF, " ".join(text.split())
        super().__init__(self.words)

    @property
    def words(self) -> str:
        said = self.text.removesuffix(f"(0x{self.code:08x})").strip()
        return f"{NAMES.get(self.code, 'result')} 0x{self.code:08x}: {said}"

    @property
    def is_full(self) -> bool:
        """The disk below the folder, or the limit of what a file may be."""
        return any(word in self.text for word in ("VERR_DISK_FULL", "VERR_FILE_TOO_BIG", "VERR_NO_SPACE"))

    @property
    def is_no_file(self) -> bool:
        return any(word in self.text for word in ("VERR_FILE_NOT_FOUND", "VERR_PATH_NOT_FOUND"))


class Unreachable(Trouble):
    """VirtualBox did not answer, or did not let us in; the call may have been done."""


class Stale(Unreachable):
    """The references that we were given are void; what was begun with them must be begun again."""


def as_error(trouble: Trouble, platform: str, action: str) -> PlatformError:
    if not isinstance(trouble, Fault):
        return PlatformUnavailable(platform=platform, action=action, reason=str(trouble))
    if trouble.code in PASSING:
        return PlatformUnavailable(platform=platform, action=action, reason=trouble.words)
    if trouble.code == NOT_SUPPORTED:
        return Unsupported(platform=platform, action=action, reason=trouble.words)
    return PlatformError(platform=platform, action=action, reason=trouble.words)


verb = verbs(Trouble, as_error, again=Stale)
"""The second time a new session is begun."""
