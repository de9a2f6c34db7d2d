"""What `polly doctor` says of an XtremIO array: the login, its rights, the cluster, the portals."""

from __future__ import annotations

from storage.errors import PlatformUnavailable, PollyError
from storage.platforms.base import Finding
from storage.platforms.passwords import exposed
from storage.platforms.restapi import KEYS
from storage.platforms.xtremio.hosts import Hosts
from storage.platforms.xtremio.options import XtremioOptions
from storage.platforms.xtremio.rights import missing_rights
from storage.platforms.xtremio.xms import NotThere, Xms


def check(options: XtremioOptions, xms: Xms, hosts: Hosts) -> list[Finding]:
    try:
        cluster = xms.get("clusters", xms.cluster, action="look at the cluster")
        hosts.groups("polly-doctor")
        portals = hosts.portals() if options.protocol == "iscsi" else "-"
    except PlatformUnavailable as error:
        mend = "Check endpoint, ca_file, username and password_file, and that this machine reaches the XMS."
        return [Finding(ok=False, subject=options.endpoint, message=str(error), mend=mend)]
    except NotThere as error:
        mend = "Name a cluster of this XMS in `cluster`, or none if it manages only one."
        return [Finding(ok=False, subject=f"cluster {options.cluster}", message=str(error), mend=mend)]
    except PollyError as error:
        return [Finding(ok=False, subject=options.endpoint, message=str(error), mend=error.advice or KEYS)]
    message = f"XtremIO {cluster.get('sys-sw-version', '')}, reached as {options.username}"
    found = [Finding(ok=True, subject=xms.cluster, message=message), *missing_rights(options, xms), *exposed(options.password_file)]
    if not portals:
        mend = "Give the cluster iSCSI portals, or check the names in `portals`."
        found.append(Finding(ok=False, subject=xms.cluster, message="it has no iSCSI portal that nodes may use", mend=mend))
    return found
