"""Sizes and times as people write and read them."""

from __future__ import annotations

import re
from datetime import datetime

from storage.errors import Invalid

_UNITS = ("MiB", "GiB", "TiB", "PiB")
_SIZE = re.compile(r"(?P<number>[0-9]{1,15}(?:\.[0-9]{1,6})?)\s*(?P<unit>[A-Za-z]*)", re.ASCII)
_FACTORS = {"": 1, "m": 1, "mib": 1, "g": 1024, "gib": 1024, "t": 1024**2, "tib": 1024**2, "p": 1024**3, "pib": 1024**3}
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_AGO = re.compile(rf"(?P<number>[0-9]{{1,9}})\s*(?P<unit>{'|'.join(_SECONDS)})", re.ASCII)
_SPANS = ((86400 * 2, 86400, "d"), (3600 * 2, 3600, "h"), (60 * 2, 60, "min"))


def size(mib: float) -> str:
    """`64 MiB`, `1.5 GiB`: three figures at least, in the largest unit that keeps the number above 1."""
    unit = 0
    while abs(mib) >= 1024 and unit < len(_UNITS) - 1:
        mib, unit = mib / 1024, unit + 1
    return f"{mib:.1f}".removesuffix(".0") + f" {_UNITS[unit]}"


def parse_size(text: str) -> int:
    """MiB, from `512`, `512MiB`, `10 GiB`, `1.5T`. Raises Invalid."""
    found = _SIZE.fullmatch(text.strip())
    factor = _FACTORS.get(found["unit"].lower()) if found else None
    if found is None or factor is None:
        raise Invalid(field="size", value=text, reason="write it as 512MiB, 10GiB or 1.5TiB; a number alone is MiB")
    mib = float(found["number"]) * factor
    if mib != int(mib) or mib < 1:
        raise Invalid(field="size", value=text, reason="it must be a whole number of MiB, 1 at least")
    return int(mib)


def span(seconds: float) -> str:
    """`45 s`, `5 min`, `3 h`, `2 d`."""
    for least, unit, name in _SPANS:
        if seconds >= least:
            return f"{int(seconds // unit)} {name}"
    return f"{max(0, int(seconds))} s"


def age(at: float, now: float) -> str:
    """How long ago an instant was; `-` for one that never was."""
    return span(now - at) if at else "-"


def moment(at: float) -> str:
    """A local date and time with its zone's offset; `-` for one that never was."""
    return datetime.fromtimestamp(at).astimezone().isoformat(sep=" ", timespec="seconds") if at else "-"


def instant(at: float) -> str:
    """A local date and time, for tables; `-` for one that never was."""
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S") if at else "-"


def parse_instant(text: str, now: float) -> float:
    """Seconds since the epoch, from `2026-11-30`, `2026-11-30 22:15`, `2026-11-30T22:15:00+01:00`, local where no offset is said, or from
    how long before `now` it was: `45min`, `12h`, `30d`. Raises Invalid."""
    ago = _AGO.fullmatch(text.strip())
    try:
        at = now - int(ago["number"]) * _SECONDS[ago["unit"]] if ago else datetime.fromisoformat(text.strip()).timestamp()
        moment(at)  # what cannot be shown is no time
        return at
    except (ValueError, OverflowError) as error:
        reason = "write it as 2026-11-30, '2026-11-30 22:15' or 2026-11-30T22:15:00+01:00, or how long ago: 45min, 12h or 30d"
        raise Invalid(field="time", value=text, reason=reason) from error


def count(number: int, thing: str) -> str:
    """`1 instance`, `3 instances`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def labels(pairs: dict[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in sorted(pairs.items()))


def clean(text: str) -> str:
    """Without characters that would act on a terminal or break a line."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)
