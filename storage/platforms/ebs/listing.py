"""Long lists of EC2's, part by part, and the escapes that its filters need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from storage.errors import Invalid
from storage.model import Page
from storage.platforms.ebs.client import Client
from storage.platforms.ebs.failures import Doing

LEAST: Final = 5
MOST: Final = 500
"""How many items EC2 gives in one page: a MaxResults outside of these is refused, or cut."""
PAGE: Final = "page:"


def exactly(text: str) -> str:
    """A filter's value that stands for this text alone: `*` and `?` are EC2's wildcards."""
    return "".join(f"\\{letter}" if letter in "*?\\" else letter for letter in text)


def page(
    client: Client, action: str, key: str, item_id: str, doing: Doing, after: str | None, limit: int, asked: Mapping[str, Any]
) -> Page[Mapping[str, Any]]:
    """One part of a list. EC2's own pages where they are not larger than `limit`; below its least, all is read and cut by the id."""
    if limit < 1:
        raise Invalid(field="limit", value=limit, reason="a part has 1 item or more")
    if limit >= LEAST and (after is None or after.startswith(PAGE)):
        token = {"NextToken": after.removeprefix(PAGE)} if after else {}
        answer = client.read(action, doing, **asked, MaxResults=min(limit, MOST), **token)
        following = answer.get("NextToken") or ""
        return Page(items=list(answer.get(key, ())), after=f"{PAGE}{following}" if following else None)
    if after is not None and after.startswith(PAGE):
        raise Invalid(field="limit", value=limit, reason=f"a list that was begun in parts of {LEAST} or more goes on so")
    items = sorted(client.pages(action, key, doing, **asked), key=lambda one: str(one[item_id]))
    rest = [one for one in items if after is None or one[item_id] > after]
    return Page(items=rest[:limit], after=str(rest[limit - 1][item_id]) if len(rest) > limit else None)
