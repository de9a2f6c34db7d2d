"""What `polly doctor` says of a cloud: whether it answers, knows us, is new enough, and lets us do what the options ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from storage.errors import PlatformError
from storage.platforms.base import Finding
from storage.platforms.cinder.client import MICROVERSIONS, SERVERS, VOLUMES, Client
from storage.platforms.cinder.failures import Refusal
from storage.platforms.cinder.options import BACKENDS, NOVA, CinderOptions

LOOKERS = frozenset({"reader", "auditor", "observer"})
UNREACHED = "look whether the service runs, and how the catalogue names it"
LOG_IN = "look at the cloud's entry in clouds.yaml, or at the OS_* variables: openstack token issue"


def check(name: str, options: CinderOptions, client: Client) -> Sequence[Finding]:
    try:
        project = client.project("log in")
    except PlatformError as error:
        return [Finding(ok=False, subject=name, message=str(error), mend=LOG_IN)]
    findings = [Finding(ok=True, subject=name, message=f"the credentials are good, for project {project}"), *_roles(client)]
    findings.append(_asked("volumes", "/volumes?limit=1", "the project's role may not list volumes: give it `member`", client))
    findings.append(_new_enough(VOLUMES, "Cinder", client))
    findings.append(_asked("volume types", "/types", "the project's role may not list volume types: give it `reader`", client))
    if options.pools == BACKENDS:
        mend = 'pools = "backends" needs an administrator; give the user the role, or take pools = "types"'
        findings.append(_asked("the scheduler's pools", "/scheduler-stats/get_pools", mend, client))
    else:
        mend = "the project's role may not read its own quota: give it `reader`"
        findings.append(_asked("the quota", f"/os-quota-sets/{project}?usage=true", mend, client))
    if options.attach == NOVA:
        mend = 'the project\'s role may not list servers, or there is no Nova; machines of their own take attach = "bare-metal"'
        findings.append(_asked("servers", "/servers?limit=1", mend, client, service=SERVERS))
        findings.append(_new_enough(SERVERS, "Nova", client))
    else:
        findings.append(
            _asked("attachments", "/attachments?limit=1", "the project's role may not see attachments: give it `member`", client)
        )
    return findings


def _roles(client: Client) -> Iterator[Finding]:
    """What may be made cannot be tried without making it; but who has these roles alone may only look."""
    if roles := client.roles("look at the roles"):
        may, words = not LOOKERS.issuperset(roles), ", ".join(roles)
        mend = "" if may else 'give the user the role `member` in the project, or `admin` for `pools = "backends"`'
        yield Finding(ok=may, subject="roles", message=words if may else f"{words}, which may only look", mend=mend)


def _asked(subject: str, path: str, mend: str, client: Client, *, service: str = VOLUMES) -> Finding:
    return _finding(subject, f"{subject} can be read", mend, lambda: client.get(path, action=f"read {subject}", service=service))


def _finding(subject: str, message: str, mend: str, ask: Callable[[], object]) -> Finding:
    try:
        ask()
    except Refusal as refusal:
        return Finding(ok=False, subject=subject, message=str(refusal), mend=mend)
    except PlatformError as error:
        return Finding(ok=False, subject=subject, message=str(error), mend=UNREACHED)
    return Finding(ok=True, subject=subject, message=message)


def _new_enough(service: str, product: str, client: Client) -> Finding:
    needed = MICROVERSIONS[service]
    try:
        newest = client.newest(service, f"ask {product} for its version")
    except (Refusal, PlatformError) as error:
        return Finding(ok=False, subject=product, message=str(error), mend=UNREACHED)
    if newest == (0, 0):
        return Finding(ok=False, subject=product, message="it does not say which microversions it speaks", mend=UNREACHED)
    said = ".".join(map(str, newest))
    if newest < tuple(int(part) for part in needed.split(".")):
        return Finding(
            ok=False, subject=product, message=f"its newest microversion is {said}", mend=f"Polly needs {needed}: a newer {product}"
        )
    return Finding(ok=True, subject=product, message=f"its newest microversion is {said}, needed is {needed}")
