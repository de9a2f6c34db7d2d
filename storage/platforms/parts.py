"""Lists in parts, for arrays that tell all or nothing: a part is cut from the whole."""

from __future__ import annotations

from collections.abc import Iterable

from storage.errors import Invalid


def cut(keys: Iterable[str], after: str | None, limit: int) -> tuple[list[str], str | None]:
    """The first `limit` of the keys behind `after`, in their order, and the last of them if there are more. Raises Invalid."""
    if limit < 1:
        raise Invalid(field="limit", value=limit, reason="a part has 1 item or more")
    rest = sorted(key for key in keys if after is None or key > after)
    return rest[:limit], rest[limit - 1] if len(rest) > limit else None
