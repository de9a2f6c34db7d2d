"""A session of vboxwebsrv: logging on, calling, and understanding its faults. Knows SOAP and zeep, and nothing of media.

A session ends when the service restarts or nobody calls for its time (300 s unless it was told otherwise). All references that
it gave are then void: Stale says so, and the next call logs on again.
"""

from __future__ import annotations

import copy
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import requests
import zeep
from zeep.exceptions import Error as ZeepError
from zeep.exceptions import Fault as SoapFault
from zeep.transports import Transport

from storage.platforms.virtualbox.failures import ABORTED, Fault, Stale, Unreachable
from storage.platforms.virtualbox.options import VirtualBoxOptions
from storage.platforms.wording import in_brief

BINDING: Final = "{http://www.virtualbox.org/}vboxBinding"
NOTHING: Final = ""
"""The reference that is none."""


class NoEntry(Unreachable):
    """The service does not let us in."""


@lru_cache(maxsize=8)
def _described(url: str, ca_file: str, timeout_s: int) -> zeep.Client:
    """The service's own description, read once by a process: it takes nearly a second."""
    return zeep.Client(f"{url}?wsdl", transport=_transport(ca_file, timeout_s))


def _transport(ca_file: str, timeout_s: int) -> Transport:
    """Without what the environment says of proxies and authorities, which would go before `ca_file`, and without redirections: a
    logon holds the password."""
    session, system = requests.Session(), ssl.get_default_verify_paths()
    session.trust_env, session.max_redirects = False, 0
    session.verify = ca_file or system.cafile or system.capath or True
    return Transport(session=session, timeout=timeout_s, operation_timeout=timeout_s)


class WebSession:
    def __init__(self, options: VirtualBoxOptions) -> None:
        self._options = options
        self._url = options.url.rstrip("/") + "/"
        self._changing = threading.RLock()
        self._client: Any = None
        self._service: Any = None
        self._box = ""
        self._mine = threading.local()

    @property
    def box(self) -> str:
        """The reference of IVirtualBox, after logging on if there is no session. Raises NoEntry, Unreachable, and Stale (see staying)."""
        with self._changing:
            kept = getattr(self._mine, "kept", "")
            if kept and kept != self._box:
                raise Stale(f"{self._url}: the session has ended, and a lock with it")
            if not self._box:
                self._box = self._log_on()
            return self._box

    @contextmanager
    def staying(self) -> Iterator[None]:
        """What this thread does inside is of one session or fails: a lock ends with its session, whoever ended it."""
        self._mine.kept = self.box
        try:
            yield
        finally:
            self._mine.kept = ""

    def is_ours(self, ref: str) -> bool:
        """Whether a reference is of the session that goes on; nobody else's means anything to the service."""
        return ref.partition("-")[0] == self._box.partition("-")[0]

    def call(self, operation: str, *arguments: object) -> Any:
        """Calls the service. Raises Fault, Stale, Unreachable."""
        try:
            return getattr(self._connected(), operation)(*arguments)
        except SoapFault as fault:
            raise self._understood(fault) from fault
        except (OSError, ZeepError) as error:
            raise Unreachable(f"{self._url}: {_briefly(error)}") from error

    def drop(self) -> None:
        """Ends the session, and with it all locks of media that it holds; the next call begins another."""
        with self._changing:
            box, self._box = self._box, ""
            if box:
                with suppress(Fault, Unreachable):
                    self.call("IWebsessionManager_logoff", box)

    def close(self) -> None:
        self.drop()
        with self._changing:
            if self._client is not None:
                self._client.transport.session.close()
            self._client = self._service = None

    def _connected(self) -> Any:
        with self._changing:
            if self._service is None:
                self._client = copy.copy(_described(self._url, self._options.ca_file, self._options.timeout_s))
                self._client.transport = _transport(self._options.ca_file, self._options.timeout_s)
                self._service = self._client.create_service(BINDING, self._url)
            return self._service

    def _log_on(self) -> str:
        try:
            box: str = self.call("IWebsessionManager_logon", self._options.username, self._password())
        except Fault as fault:
            who = repr(self._options.username) if self._options.username else "a client without username"
            raise NoEntry(f"{self._url} does not let {who} in: check username and password_file ({fault.words})") from fault
        return box

    def _password(self) -> str:
        if not self._options.password_file:
            return ""
        try:
            found = Path(self._options.password_file).read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise NoEntry(f"password_file {self._options.password_file} cannot be read: {reason}") from error
        if not found:
            raise NoEntry(f"password_file {self._options.password_file} is empty")
        return found

    def _understood(self, fault: SoapFault) -> Exception:
        if isinstance(fault.detail, bytes):  # of an answer that is no SOAP at all
            return Unreachable(f"{self._url}: a page is answered where the web service should be")
        said = {element.tag.rpartition("}")[2]: element.text or "" for element in (fault.detail.iter() if fault.detail is not None else ())}
        if "badObjectID" in said:
            self._void(said["badObjectID"])
            return Stale(f"{self._url}: the session has ended")
        text = re.sub(r"^VirtualBox error: (apirc=\w+ )?", "", fault.message or "no reason was given")
        refused = Fault(int(said.get("resultCode") or -0x7FFFBFFB), text)
        if refused.code == ABORTED:
            return Unreachable(f"{self._url}: {refused.words} VBoxSVC has died: restart vboxwebsrv")
        return refused

    def _void(self, ref: str) -> None:
        """Ends the session that the reference is of, unless another thread has begun a new one already."""
        with self._changing:
            if self.is_ours(ref):
                self.drop()


def _briefly(error: Exception) -> str:
    """Without the addresses of objects in memory, and in one line."""
    return re.sub(r"<[^>]* at 0x[0-9a-f]+>", "", in_brief(error))[:300] or type(error).__name__
