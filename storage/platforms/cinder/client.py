"""Calls of OpenStack's APIs: one after another as fast as the bucket lets them, with every failure sorted once.

The only module of the adapter that knows openstacksdk. It reads clouds.yaml and the environment, gets a token when it needs
one and a new one when that ends. Whatever the API refuses is raised as a Refusal for the caller to understand.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import openstack
import yaml
from keystoneauth1 import exceptions as keystone
from keystoneauth1.adapter import Adapter
from keystoneauth1.exceptions import http

from storage.errors import PlatformError, PlatformUnavailable
from storage.platforms.cinder.failures import Refusal, retry_after_s
from storage.platforms.cinder.options import CinderOptions
from storage.platforms.pacing import TokenBucket
from storage.platforms.wording import in_brief

VOLUMES: Final = "block-storage"
SERVERS: Final = "compute"
MICROVERSIONS: Final[Mapping[str, str]] = {VOLUMES: "3.60", SERVERS: "2.60"}
"""Cinder's of Ussuri, 2020: attachments with a mode. Nova's of Queens, 2018: volumes for several servers."""
FROM: Final[Mapping[str, str]] = {VOLUMES: "3", SERVERS: "2.1"}
"""The API's version, which an endpoint may name; Nova's 2.0 knows no microversions."""
ADDRESS: Final = re.compile(r"https?://[^\s'\"]+?(?=[:,.]?(?:\s|$))")
TRIES: Final = 8
"""How often a call that was refused for its rate is made."""
LONGEST_WAIT_S: Final = 60.0

A = TypeVar("A")


class Client:
    """`answer_s`: how long a call may take."""

    def __init__(
        self, platform: str, options: CinderOptions, bucket: TokenBucket, *, wait: Callable[[float], object], answer_s: float
    ) -> None:
        self._platform, self._options, self._bucket, self._wait, self._answer_s = platform, options, bucket, wait, answer_s
        self._adapters: dict[str, Adapter] = {}
        self._region: Any = None
        self._lock = threading.RLock()

    def get(self, path: str, *, action: str, service: str = VOLUMES, **query: object) -> Any:
        """An answer's JSON. Raises Refusal, PlatformUnavailable, PlatformError."""
        return self.ask("GET", path, action=action, service=service, query=query)

    def get_or_none(self, path: str, *, action: str, service: str = VOLUMES) -> Any:
        """None where there is no such thing."""
        try:
            return self.get(path, action=action, service=service)
        except Refusal as refusal:
            if refusal.is_missing:
                return None
            raise

    def ask(
        self,
        method: str,
        path: str,
        *,
        action: str,
        service: str = VOLUMES,
        body: Mapping[str, object] | None = None,
        query: Mapping[str, object] | None = None,
    ) -> Any:
        """Makes a call. One without an answer is not repeated here."""
        return self._patiently(action, service, lambda adapter: self._once(adapter, method, path, service, body, query))

    def project(self, action: str) -> str:
        """The id of the project that the credentials are for; it needs no call of its own once there is a token."""
        return self._patiently(action, VOLUMES, lambda adapter: str(adapter.get_project_id() or ""))

    def roles(self, action: str) -> tuple[str, ...]:
        """The roles that the credentials have in the project; empty where the way to log in does not tell."""

        def of(adapter: Adapter) -> tuple[str, ...]:
            access = getattr(adapter.session.auth, "get_access", None)
            return tuple(sorted(access(adapter.session).role_names)) if access else ()

        return self._patiently(action, VOLUMES, of)

    def newest(self, service: str, action: str) -> tuple[int, int]:
        """The newest microversion that a service speaks; (0, 0) if it does not say."""

        def of(adapter: Adapter) -> tuple[int, int]:
            data = adapter.get_endpoint_data()
            found = data.max_microversion if data else None
            return (int(found[0]), int(found[1])) if found else (0, 0)

        return self._patiently(action, service, of)

    def close(self) -> None:
        with self._lock:
            self._adapters.clear()
            if self._region is not None:
                self._region.get_session().session.close()
                self._region = None

    def _patiently(self, action: str, service: str, run: Callable[[Adapter], A]) -> A:
        """What `run` returns, asked again and slower as long as it is refused for the rate of calls, by Keystone as by the service."""
        with self._sorted(action):
            adapter = self._adapter(service)
            for _ in range(TRIES - 1):
                self._bucket.take()
                try:
                    return run(adapter)
                except (Refusal, keystone.ClientException) as error:
                    limit = _limit(error)
                    if limit is None:
                        raise
                self._bucket.throttled()
                self._wait(min(limit, LONGEST_WAIT_S))
            self._bucket.take()
            return run(adapter)

    def _once(
        self, adapter: Adapter, method: str, path: str, service: str, body: Mapping[str, object] | None, query: Mapping[str, object] | None
    ) -> Any:
        answer = adapter.request(
            path,
            method,
            json=body,
            params=query or None,
            microversion=MICROVERSIONS[service],
            headers={"Accept": "application/json"},
            raise_exc=False,
            timeout=self._answer_s,
        )
        said = _json(answer)
        # A page instead of JSON is a proxy's, whatever its status, and so is an answer to a question that says nothing.
        if answer.status_code >= 300 or isinstance(said, str) or (method == "GET" and not said):
            raise Refusal.read(answer.status_code, said, answer.headers)
        return said

    def _adapter(self, service: str) -> Adapter:
        """Made at first use; its session and its token are shared by all services."""
        with self._lock:
            if self._region is None:
                self._region = self._configured()
            if service not in self._adapters:
                self._adapters[service] = _adapter(self._region, service)
            return self._adapters[service]

    def _configured(self) -> Any:
        options = self._options
        files = [options.clouds_file] if options.clouds_file else None
        if files:
            self._make_sure_it_can_be_read(options.clouds_file)
        region: dict[str, Any] = {"region_name": options.region} if options.region else {}
        return openstack.config.OpenStackConfig(config_files=files).get_one(cloud=options.cloud or None, **region)

    def _make_sure_it_can_be_read(self, file: str) -> None:
        """The SDK takes a file that it cannot read for one that there is not."""
        try:
            read = yaml.safe_load(Path(file).read_text("utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not YAML"
            raise self._failed("log in", f"clouds_file {file} cannot be read: {why}") from error
        if not isinstance(read, dict) or not read.get("clouds"):
            raise self._failed("log in", f"clouds_file {file} has no `clouds`")

    @contextmanager
    def _sorted(self, action: str) -> Iterator[None]:
        """What the SDK raises, as Polly's errors."""
        try:
            yield
        except (http.HTTPClientError, keystone.AuthorizationFailure) as error:
            # Only Keystone's answers are raised here: 401 for a wrong password, 404 for an application credential that is gone.
            what = "the credentials are refused" if _limit(error) is None else "Keystone limits the calls"
            raise self._unavailable(action, f"{what}: {_said(error)}") from error
        except (keystone.MissingRequiredOptions, keystone.NoMatchingPlugin, openstack.exceptions.ConfigException) as error:
            raise self._failed(action, f"the credentials are not complete: {_said(error)}") from error
        except keystone.CatalogException as error:
            if error.message == keystone.EndpointNotFound.message:  # what is raised of an endpoint that is there, but whose answer was none
                raise self._unavailable(action, "the service does not say its versions at the endpoint that the catalogue names") from error
            raise self._failed(action, f"the catalogue lacks the service: {_said(error)}") from error
        except (keystone.ClientException, openstack.exceptions.SDKException, OSError) as error:
            raise self._unavailable(action, f"{type(error).__name__}: {_said(error)}") from error

    def _failed(self, action: str, reason: str) -> PlatformError:
        return PlatformError(platform=self._platform, action=action, reason=reason)

    def _unavailable(self, action: str, reason: str) -> PlatformUnavailable:
        return PlatformUnavailable(platform=self._platform, action=action, reason=reason)


def _adapter(region: Any, service: str) -> Adapter:
    """As the cloud's entry says: endpoint_override, interface and region may differ for each service."""
    return Adapter(
        session=region.get_session(),
        service_type=region.get_service_type(service),
        service_name=region.get_service_name(service),
        interface=region.get_interface(service),
        region_name=region.get_region_name(service),
        endpoint_override=region.get_endpoint(service),
        # Where the catalogue's endpoint names no version, the service is asked where that is; a guess would be asked for things in vain.
        min_version=FROM[service],
        max_version=f"{FROM[service].partition('.')[0]}.latest",
        allow_version_hack=False,
    )


def _limit(error: BaseException | None) -> float | None:
    """How many seconds to wait after a call that was refused for its rate; None if it was refused for something else.

    What Keystone answers to the question for its versions is the context of an error that says that there are none.
    """
    while error is not None:
        if isinstance(error, Refusal):
            return error.retry_after_s if error.is_throttle else None
        if isinstance(error, http.TooManyRequests | http.RequestEntityTooLarge):
            return retry_after_s(error.response.headers) if error.response is not None else 0.0
        error = error.__context__ if isinstance(error, keystone.DiscoveryFailure) else None
    return None


def _said(error: Exception) -> str:
    """Without the full stop, as a sentence goes on around it; of a network's failure with the address that was asked."""
    said, asked = in_brief(error).rstrip("."), ADDRESS.search(str(error))
    return f"{asked[0]}: {said}" if asked and asked[0] not in said and said not in (str(error), str(error).rstrip(".")) else said


def _json(answer: Any) -> Any:
    """None of an empty answer, the text of one that is no JSON."""
    if not answer.content:
        return None
    try:
        return answer.json()
    except ValueError:
        return str(answer.text)
