"""That all processes of one root use the same way to VirtualBox: each way has a lock of its own, which does not shut out the other's."""

from __future__ import annotations

from typing import Final

from storage.errors import Invalid
from storage.platforms.virtualbox.host import Host

WAYS: Final = ("soap", "vboxmanage")


class OneWay:
    """Kept in VirtualBox's global extra data, under a key for each way: whoever writes its own first and then looks sees the other's."""

    def __init__(self, root: str, via: str) -> None:
        self._root, self._via = root, via
        self._sure = False

    def make_sure(self, host: Host) -> None:
        """Raises Invalid where others use the root in another way. Once sure is always sure: they are refused from then on."""
        if self._sure:
            return
        mine = self._key(self._via)
        if not self._seen(host):
            host.write_record(mine, self._via)
            try:
                self._seen(host)
            except Invalid:
                host.write_record(mine, "")
                raise
        self._sure = True

    def _seen(self, host: Host) -> bool:
        """Whether our way is known to be used."""
        found = host.records([self._key(way) for way in WAYS])
        for key in found.keys() - {self._key(self._via)}:
            reason = (
                f"others use {self._root} by via = {found[key]!r}, and so must all; once nobody does: VBoxManage setextradata global {key}"
            )
            raise Invalid(field="via", value=self._via, reason=reason)
        return bool(found)

    def _key(self, way: str) -> str:
        return f"polly-way{self._root}/{way}"
