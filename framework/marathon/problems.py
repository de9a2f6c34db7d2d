"""What is wrong with a definition: collected whole, said together, as Marathon does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from storage.errors import NotYet, PollyError

Path = tuple[str | int, ...]
"""Field names and list positions, from the definition's root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong, and where."""

    path: Path
    message: str

    @property
    def where(self) -> str:
        """Such as `container.volumes[0].persistent.size`; `app` for the definition as a whole."""
        text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)
        return text.removeprefix(".") or "app"

    @property
    def marathon_path(self) -> str:
        """As Marathon's own messages have it: `/container/volumes(0)/persistent/size`."""
        return "".join(f"({part})" if isinstance(part, int) else f"/{part}" for part in self.path) or "/"

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


class InvalidApp(PollyError):
    """The app definition is not valid. {summary}."""

    status = 422
    exit_code = 2
    hint = "docs/apps.md lists what a definition may hold."

    @classmethod
    def of(cls, problems: Sequence[Problem]) -> InvalidApp:
        return cls(summary="; ".join(str(problem) for problem in problems), problems=tuple(problems))

    @property
    def problems(self) -> tuple[Problem, ...]:
        found: tuple[Problem, ...] = self.fields["problems"]
        return found


class HeldApp(PollyError):
    """App {app} is held, so nothing of it is launched, replaced or killed: {reason}"""

    status = 409
    exit_code = 5
    hint = (
        "Run the Polly that took it, or end it and run it again with a definition that is valid: polly app kill {app}"
        " (its profiles say what becomes of its volumes)."
    )


class Report:
    """Collects problems while a definition is read; one that is found twice is kept once."""

    def __init__(self) -> None:
        self._wrong: dict[Problem, None] = {}
        self._not_yet: dict[Problem, None] = {}

    def wrong(self, path: Path, message: str) -> None:
        self._wrong[Problem(path=path, message=message)] = None

    def not_yet(self, path: Path, what: str) -> None:
        """The definition asks for something that is valid in Marathon but that Polly does not do yet."""
        self._not_yet[Problem(path=path, message=what)] = None

    def __bool__(self) -> bool:
        return bool(self._wrong or self._not_yet)

    def fail(self) -> NoReturn:
        """Raises InvalidApp with everything, or NotYet where all is valid but some is not done yet."""
        if self._wrong:
            later = [Problem(path=p.path, message=f"asks for {p.message}, which Polly does not do yet") for p in self._not_yet]
            raise InvalidApp.of([*self._wrong, *later])
        first, *others = dict.fromkeys((p.where, p.message) for p in self._not_yet)
        raise NotYet(field=first[0], what="; ".join([first[1], *(f"{where} for {message}" for where, message in others)]))


def _joined(words: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(words))
