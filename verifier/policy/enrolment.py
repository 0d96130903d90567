"""Who is enrolled as what: hosts by id, and the platforms and devices that are theirs alone (DESIGN §2).

A genuine machine becomes ours by its platform ids, a genuine device by the SHA-256 of its leaf key. Each may stand for
one host only: were one enrolled twice, its evidence would prove either host's claims.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

from schemas.records import HostEnrolment, Policy
from verifier.errors import EnrolmentAmbiguous, PolicyInvalid, VerificationError

HOST_ID, PLATFORM_IDS, GPU_KEY_DIGESTS = "host_id", "platform_ids", "gpu_key_digests"

_DIGEST_CHARACTERS = 64
_POLICIES_REMEMBERED = 16
_FIX = "Correct the enrolment of this host in the policy, and sign it anew."


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A policy's hosts by id; `owners` has the first host of every id and key digest (field, hex, lower case).

    `shared` has those that stand twice, with their hosts.
    """

    hosts: dict[str, HostEnrolment]
    owners: dict[tuple[str, str], str]
    shared: dict[tuple[str, str], tuple[str, ...]]

    def check(self, host: HostEnrolment) -> None:
        """Nothing of this host is enrolled twice, and its key digests are digests.

        `EnrolmentAmbiguous`, `PolicyInvalid`; the field is the enrolment's.
        """
        for error in self.errors(host):
            raise error

    def errors(self, host: HostEnrolment) -> list[VerificationError]:
        """Everything that is wrong with the enrolment of this host."""
        found: list[VerificationError] = []
        if (HOST_ID, host.host_id) in self.shared:
            found.append(EnrolmentAmbiguous(f"host {host.host_id!r} is enrolled twice", field=HOST_ID))
        for field, ids in ((PLATFORM_IDS, host.platform_ids), (GPU_KEY_DIGESTS, host.gpu_key_digests)):
            for one in map(str.lower, ids):
                names = self.shared.get((field, one), ())
                if names:
                    who = " and ".join(map(repr, names[:2]))
                    found.append(EnrolmentAmbiguous(f"{one[:16]}… is enrolled for {who}", field=field))
                if field == GPU_KEY_DIGESTS and not _is_digest(one):
                    text = f"host {host.host_id!r}: a key digest is no SHA-256 in hexadecimal"
                    found.append(PolicyInvalid(text, field=field, remedy=_FIX))
        return found

    def owner_of(self, key_digest: str) -> str | None:
        """The host a device key's digest (hex, lower case) is enrolled for; None if for none."""
        return self.owners.get((GPU_KEY_DIGESTS, key_digest))

    def owner_of_platform(self, platform_id: str) -> str | None:
        """The host a platform id (hex, lower case) is enrolled for; None if for none."""
        return self.owners.get((PLATFORM_IDS, platform_id))


def enrolment_of(policy: Policy) -> Enrolment:
    """The index of a policy's hosts; made once for each policy in use."""
    hosts = policy.hosts
    with _LOCK:
        held = _SEEN.get(id(hosts))
        if held is not None and held[0] is hosts:
            _SEEN.move_to_end(id(hosts))
            return held[1]
    made = _index(hosts)
    with _LOCK:
        # The tuple is kept with its index: as long as it is here, nothing else can have its id.
        _SEEN[id(hosts)] = hosts, made
        while len(_SEEN) > _POLICIES_REMEMBERED:
            _SEEN.popitem(last=False)
    return made


def lint_enrolment(policy: Policy) -> tuple[VerificationError, ...]:
    """What is wrong with the enrolment of any host or aggregator, for whoever writes or signs a policy."""
    enrolment = enrolment_of(policy)
    found = [error for host in policy.hosts for error in enrolment.errors(host)]
    for host_id in dict.fromkeys(one.host_id for one in policy.aggregators):
        try:
            check_aggregators(policy, host_id)
        except EnrolmentAmbiguous as error:
            found.append(error)
    return tuple(found)


def check_aggregators(policy: Policy, host_id: str) -> None:
    """No two aggregators have this id. `EnrolmentAmbiguous`."""
    if sum(one.host_id == host_id for one in policy.aggregators) > 1:
        raise EnrolmentAmbiguous(f"aggregator {host_id!r} is enrolled twice", field=HOST_ID)


def _index(hosts: tuple[HostEnrolment, ...]) -> Enrolment:
    by_id: dict[str, HostEnrolment] = {}
    first: dict[tuple[str, str], str] = {}
    shared: dict[tuple[str, str], tuple[str, ...]] = {}
    for host in hosts:
        if host.host_id in by_id:
            shared[HOST_ID, host.host_id] = (host.host_id,) * 2
        by_id.setdefault(host.host_id, host)
        for field, ids in ((PLATFORM_IDS, host.platform_ids), (GPU_KEY_DIGESTS, host.gpu_key_digests)):
            for one in ids:
                key = field, one.lower()
                if key in first:
                    shared[key] = (*shared.get(key, (first[key],)), host.host_id)
                first.setdefault(key, host.host_id)
    return Enrolment(by_id, first, shared)


def _is_digest(text: str) -> bool:
    return len(text) == _DIGEST_CHARACTERS and all(one in "0123456789abcdef" for one in text)


_SEEN: OrderedDict[int, tuple[tuple[HostEnrolment, ...], Enrolment]] = OrderedDict()
_LOCK = Lock()
