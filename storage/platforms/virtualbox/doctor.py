"""What `polly doctor` says of a VirtualBox: whether it answers and lets us in, and whether its folders are there. Makes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from storage.platforms.base import Finding
from storage.platforms.passwords import exposed
from storage.platforms.virtualbox import layout
from storage.platforms.virtualbox.failures import Fault, Unreachable
from storage.platforms.virtualbox.media import Media
from storage.platforms.virtualbox.options import VirtualBoxOptions
from storage.platforms.virtualbox.websession import NoEntry


def check(options: VirtualBoxOptions, media: Media) -> Sequence[Finding]:
    subject = options.url if options.via == "soap" else options.vboxmanage
    try:
        answer = Finding(ok=True, subject=subject, message=f"VirtualBox {media.host.version()} answers")
        return [answer, *exposed(options.password_file), *(_folder(media, pool) for pool in options.pools), *_left(media), *_plain(options)]
    except NoEntry as error:
        mend = "put the user's name and password_file into polly.toml, or mend them on the VM host (see docs/platforms/virtualbox.md)"
        return [Finding(ok=False, subject=subject, message=str(error), mend=mend)]
    except (Unreachable, Fault) as error:
        start = "start vboxwebsrv on the VM host" if options.via == "soap" else "install VirtualBox here, or name its program: vboxmanage"
        return [Finding(ok=False, subject=subject, message=str(error).removeprefix(f"{subject}: "), mend=start)]


def _folder(media: Media, pool: str) -> Finding:
    folder = media.places.folder(pool)
    if media.host.has_folder(folder):
        return Finding(ok=True, subject=folder, message=f"the folder of pool {pool} is there")
    return Finding(
        ok=False, subject=folder, message=f"the folder of pool {pool} is not there", mend=f"mount its disk, or make it: {folder}"
    )


def _left(media: Media) -> Sequence[Finding]:
    parts = [place for _, place in media.listed() if layout.is_part(place)]
    if not parts:
        return ()
    message = f"{len(parts)} media are being made, or were when their makers died; those are deleted after a day"
    return (Finding(ok=True, subject="unfinished media", message=message),)


def _plain(options: VirtualBoxOptions) -> Sequence[Finding]:
    address = options.url.partition("://")[2].rstrip("/")
    if options.via != "soap" or options.url.startswith("https:") or address.startswith(("127.", "localhost", "[::1]")):
        return ()
    message = "the password and every call go over the network as plain text"
    return (Finding(ok=False, subject=options.url, message=message, mend="start vboxwebsrv with --ssl and write https:// into url"),)
