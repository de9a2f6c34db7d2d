"""Every error that Polly raises on purpose. An error's docstring is its sentence; its fields are keyword arguments.

Each class says how a program sees it: `status` is the HTTP status, `exit_code` the exit status of the
command line. Both are read by one function each (framework/failures.py), nowhere else.
"""

from __future__ import annotations

from string import Formatter
from typing import Any, ClassVar


class PollyError(Exception):
    """Polly could not do this."""

    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    hint: ClassVar[str] = ""
    """What to try, as a sentence. May use the same fields as the docstring."""

    def __init__(self, **fields: Any) -> None:
        wanted = {name for _, name, _, _ in Formatter().parse(self._sentence() + self.hint) if name}
        if missing := wanted - fields.keys():
            raise TypeError(f"{type(self).__name__} needs {', '.join(sorted(missing))}")
        self.fields = fields
        said = self._sentence().format_map(fields)
        # A vendor's words may end with a full stop of their own.
        super().__init__(said[:-1] if said.endswith("..") and not said.endswith("...") else said)

    @classmethod
    def _sentence(cls) -> str:
        return " ".join((cls.__doc__ or cls.__name__).split())

    @property
    def advice(self) -> str:
        """What to try next; empty where nothing more can be said."""
        return self.hint.format_map(self.fields)

    @property
    def code(self) -> str:
        """The name that programs see, such as `UnknownVolume`."""
        return type(self).__name__

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.fields))


def _rebuild(kind: type[PollyError], fields: dict[str, Any]) -> PollyError:
    return kind(**fields)


# --- what the caller got wrong -----------------------------------------------------------------


class Invalid(PollyError):
    """{field} is {value!r}: {reason}."""

    status = 422
    exit_code = 2


class NotYet(PollyError):
    """{field} asks for {what}, which Polly does not do yet."""

    status = 422
    exit_code = 2


class Unknown(PollyError):
    """There is no such thing."""

    status = 404
    exit_code = 4

    @property
    def advice(self) -> str:
        """Begins with `near`, the name that may have been meant, where whoever raised it has found one."""
        meant = self.fields.get("near")
        return f"Did you mean {meant}? {super().advice}" if meant else super().advice


class UnknownVolume(Unknown):
    """There is no volume {volume}."""

    hint = "List what there is with: polly volume list"


class NotOnPlatform(UnknownVolume):
    """Platform {platform} has no volume {volume}."""

    hint = "List what it has besides Polly's own, after polly drift has looked, with: polly volume foreign --platform {platform}"


class UnknownSnapshot(Unknown):
    """There is no snapshot {snapshot}."""

    hint = "List what there is with: polly snapshot list"


class UnknownClaim(Unknown):
    """There is no live claim {claim}."""

    hint = "List what there is with: polly claim list"


class UnknownPool(Unknown):
    """There is no pool {pool} on platform {platform}."""

    hint = "List what there is with: polly inventory"


class UnknownPlatform(Unknown):
    """There is no platform {platform}."""

    hint = "Platforms are blocks [platforms.NAME] of polly.toml; list them with: polly inventory"


class UnknownProfile(Unknown):
    """There is no profile {profile}."""

    hint = "Profiles are blocks [profiles.NAME] of polly.toml; list them with: polly profile list"


class UnknownApp(Unknown):
    """There is no app {app}."""

    hint = "List what there is with: polly app list"


class AlreadyExists(PollyError):
    """{kind} {name} exists already."""

    status = 409
    exit_code = 5


# --- what stands in the way ----------------------------------------------------------------------


class Conflict(PollyError):
    """{what} is not as expected: wanted {expected}, found {found}."""

    status = 409
    exit_code = 5


class WorkedOnElsewhere(PollyError):
    """Another broker on this ledger is at work on {what}."""

    status = 409
    exit_code = 5
    hint = "What was asked for is stored, and is done once that has ended; see: polly events"


class TurnLost(WorkedOnElsewhere):
    """The right to work on {what} ended with the ledger's session, as by a restart of PostgreSQL."""


class VolumeInUse(PollyError):
    """Volume {volume} is in use by {holder}."""

    status = 409
    exit_code = 5
    hint = "It is free once that task has ended and let go of it. polly volume show {volume} says more, polly app scale or kill ends it."


class StaleEpoch(PollyError):
    """Volume {volume} is at epoch {found}; a holder with epoch {epoch} must not touch it."""

    status = 409
    exit_code = 5


class HasSnapshots(PollyError):
    """Volume {volume} has snapshots: {snapshots}."""

    status = 409
    exit_code = 5
    hint = "Delete them first with: polly snapshot delete ID"


class PoolFull(PollyError):
    """Pool {pool} of platform {platform} has {free_mib} MiB free, {size_mib} MiB were asked for."""

    status = 507
    exit_code = 6
    hint = "The room of all pools is shown by: polly inventory"


class NoSlot(PollyError):
    """Node {node} has all {slots} attach slots of platform {platform} in use."""

    status = 409
    exit_code = 6


class LedgerUnavailable(PollyError):
    """The ledger {url} cannot be used: {reason}."""

    status = 503
    exit_code = 7
    hint = "Check the --database URL, that its folder exists and is writable, and that its disk has room."


class LostRace(LedgerUnavailable):
    """Two writers of the ledger {url} waited for each other, and this one gave way: {reason}."""

    hint = "Nothing of it was stored. Ask again."


class AlreadyLed(PollyError):
    """Another broker ({holder}) runs this ledger's framework {scheduler}."""

    status = 409
    exit_code = 5
    hint = "Stop the other broker first, or give this one a ledger or a framework name of its own."


# --- the platform and the node ---------------------------------------------------------------------


class PlatformError(PollyError):
    """Platform {platform} failed to {action}: {reason}."""

    status = 502
    exit_code = 8


class PlatformUnavailable(PlatformError):
    """Platform {platform} cannot be reached to {action}: {reason}."""

    status = 503


class Unsupported(PlatformError):
    """Platform {platform} cannot {action}: {reason}."""

    status = 422


class AdapterFault(PlatformError):
    """The adapter of platform {platform} failed by a fault of its own: {reason}."""

    hint = "The broker's log has the details; they are for whoever wrote the adapter."


class MissingSdk(PlatformError):
    """Platform {platform} needs the Python package {package}, which is not installed."""

    status = 503
    hint = "Install it with: pip install 'polly-broker[{extra}]'"


class MissingPackage(MissingSdk):
    """Platform {platform} needs the Python package {package}, which is not installed."""

    hint = "Its adapter comes from {distribution}; install that with what it needs: pip install {package}"


class NodeError(PollyError):
    """{command} failed on {target}: {reason}."""

    exit_code = 8


class BornElsewhere(PollyError):
    """Volume {external_id} of platform {platform} bears a birth certificate that this ledger does not have; nothing was deleted."""

    status = 409
    exit_code = 5
    hint = "Was the ledger restored from an older backup? Start the broker once with --restored. Else look at the volume and import it."


class BornAsAnother(PollyError):
    """Volume {external_id} of platform {platform} is a copy: it bears the birth certificate of {serial}; nothing was imported."""

    status = 409
    exit_code = 5
    hint = "Take Polly's marks off the copy with the platform's own tools, then import it."


class NotOurs(PollyError):
    """Volume {external_id} of platform {platform} bears no mark of Polly's, as the one of that id did before; nothing was deleted."""

    status = 409
    exit_code = 5
    hint = "Has somebody put another in its place? If it is to go all the same, delete it with the platform's own tools, then here."


class DeviceNotFound(NodeError):
    """No device with serial {serial} came up on this node within {timeout_s} s."""


class WrongDevice(NodeError):
    """Device {device} has serial {found!r}, the volume's is {expected!r}; nothing was touched."""


class NotBlank(NodeError):
    """Device {device} was to be formatted but holds {found}; nothing was touched."""

    hint = (
        "Look at the device; a person must decide what becomes of the data on it. If the ledger was restored from an older backup, start "
        "the broker once with --restored; what is not Polly's is taken over by: polly volume import"
    )


class NotFormatted(NodeError):
    """Device {device} was to bring a {expected} filesystem but holds {found}; nothing was touched."""

    hint = "Only a volume that Polly creates is formatted; give an imported one the filesystem that its profile names."


class NotAsBorn(NodeError):
    """Device {device} does not match the volume's birth certificate: {what} is {found!r}, recorded was {expected!r}."""

    hint = "Look at the device; it may be another volume's. Nothing was mounted."


class DamagedFilesystem(NodeError):
    """The filesystem on {device} needs a repair by hand: {reason}."""

    hint = "Attach the volume to a machine of yours and run the filesystem's own repair tool."


class BusyMount(NodeError):
    """{target} cannot be unmounted: still in use by {holders} after {timeout_s} s."""


class DeviceInUse(NodeError):
    """Device {device} is in use by {holders}; nothing was touched."""

    status = 409
    exit_code = 5


class UnsafePath(NodeError):
    """{path!r} is not a safe path: {reason}."""

    status = 422


class LeaseExpired(NodeError):
    """The claim's lease of {lease_s} s ended before {action}; nothing was begun."""


class CannotRun(NodeError):
    """The node cannot {command}: {reason}."""


class NotDelivered(PollyError):
    """{message}"""

    @property
    def advice(self) -> str:
        return str(self.fields.get("advice", ""))

    @property
    def code(self) -> str:
        """That of the error that stood in the broker's way."""
        return str(self.fields["error"])


class Cancelled(PollyError):
    """It was called off: {reason}."""
