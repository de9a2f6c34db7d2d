"""Whether a user may change the array, as far as it can be seen without changing it: for `polly doctor`."""

from __future__ import annotations

from typing import Final

from storage.errors import PlatformError
from storage.platforms.base import Finding
from storage.platforms.xtremio.options import XtremioOptions
from storage.platforms.xtremio.xms import NotThere, Xms

NOTHING: Final = "polly-doctor"
"""No LUN map is called so: the array makes their names of numbers."""


def missing_rights(options: XtremioOptions, xms: Xms) -> list[Finding]:
    """What the XMS says to a user who may only look, when a LUN map that is not there is to be deleted.

    That it only misses the map proves no right: in which order an XMS looks at rights and names is not documented.
    """
    try:
        xms.delete("lun-maps", NOTHING, action="change LUN maps")
    except NotThere:
        return []
    except PlatformError as error:
        mend = f"Give user {options.username} a role of the XMS that may configure; one that may only read is not enough."
        return [Finding(ok=False, subject="rights", message=str(error), mend=mend)]
    return []
