"""What changes from one policy to another, field by field, and which changes make it trust more or protect less."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from enclavescale.policy.document import AT_ISSUE
from schemas.contract import FIRST_MILE_GRADES
from schemas.mapping import to_jsonable
from schemas.records import Policy

ADDED, REMOVED, CHANGED = "added", "removed", "changed"

_KEYS: dict[str, tuple[str, ...]] = {
    "domains": ("domain",),
    "hosts": ("host_id",),
    "aggregators": ("host_id",),
    "models": ("model",),
    "classes": ("model",),
    "measurements": ("role", "tee", "label"),
    "registers": ("register",),
    "trust_roots": ("tee", "label"),
    "tcb_rules": ("tee",),
    "revoked": ("kind", "id"),
}
"""What tells the records of a list apart."""

_MORE_ENTRIES = {
    "hosts": "another host is believed",
    "aggregators": "another worker decides and signs",
    "measurements": "more code is trusted",
    "trust_roots": "another root is trusted",
    "accepted_sources": "another source is believed",
    "accepted_sampler_modes": "another kind of readings is accepted",
    "platform_ids": "another machine is believed",
    "gpu_key_digests": "another device is believed",
    "accepted_statuses": "platforms of another status are accepted",
    "allowed_advisories": "platforms with more flaws are accepted",
}
"""Lists of which more entries trust more."""

_FEWER_ENTRIES = {
    "registers": "less of the code is measured",
    "tcb_rules": "fewer rules judge the TCB",
    "revoked": "what was revoked is trusted again",
}
"""Lists of which fewer entries trust more."""

_HIGHER = {
    "grace_days": "platforms may stay behind for longer",
    "lateness_ms": "figures may change for longer",
    "clock_skew_tolerance_ms": "reports from further in the future are taken",
    "max_epsilon_micro": "hosts may reveal more",
    "max_control_age_ms": "older control records are taken",
    "max_beacon_age_ms": "older evidence is taken",
    "max_collateral_age_ms": "older collateral is taken",
    "evidence_interval_windows": "evidence is repeated less often",
    "drift_cap_ppm": "liars may move the mean further",
    "limit_w": "more power is allowed",
}
"""Numbers of which a higher one protects less."""

_LOWER = {
    "counter": "an older policy: workers refuse it",
    "k_min_hosts": "figures of fewer hosts are published",
    "k_min_tenants": "figures of fewer tenants are published",
    "quorum_ppm": "less of the capacity has to report",
    "confidence_ppm": "intervals hold less often",
    "quantile_ppm": "the margin leaves room for less",
    "max_colluding_ppm": "fewer liars are reckoned with",
    "min_tcb_evaluation_number": "older collateral is taken",
    "window_ms": "figures are of shorter time",
    "pane_ms": "figures are of shorter time",
}
"""Numbers of which a lower one protects less."""

_ALWAYS = {
    "value": "other code is trusted",
    "mask": "other bits count",
    "certificate_der": "another key is trusted",
    "simulated": "what counts as hardware changes",
    "edges_w": "another grid: what is revealed changes",
    "clip_low_w": "another clip range: what is revealed changes",
    "clip_high_w": "another clip range: what is revealed changes",
    "capacity_w": "a host may claim another share of the power",
    "gpus": "a host may claim another share of the power",
    "domain": "a host reports elsewhere",
    "tenant": "whose reports count together changes",
    "failure_domain": "whose reports count together changes",
    "partition": "the domain's log begins anew elsewhere",
}
"""Fields of which any change matters to security."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference. `path`: records of lists by their names; `before`, `after`: as in a document's JSON, None where
    there is nothing; `weaker`: why the later policy trusts more or protects less, "" where it does not."""

    path: str
    kind: str
    before: Any
    after: Any
    weaker: str = ""


def changes(before: Policy, after: Policy) -> tuple[Change, ...]:
    """Every difference, in the order of the fields; what signing fills in counts between signed policies alone."""
    return tuple(_record(to_jsonable(before), to_jsonable(after), ""))


def weaker(found: tuple[Change, ...]) -> tuple[Change, ...]:
    """Those after which the policy trusts more or protects less."""
    return tuple(one for one in found if one.weaker)


def _record(before: Mapping[str, Any], after: Mapping[str, Any], path: str) -> Iterator[Change]:
    for name, old in before.items():
        new, where = after[name], f"{path}.{name}" if path else name
        if old == new or (where in AT_ISSUE and 0 in (old, new)):  # what is not signed yet has none
            continue
        if isinstance(old, dict):
            yield from _record(old, new, where)
        elif name in _KEYS:
            yield from _entries(name, old, new, where)
        elif isinstance(old, list) and all(isinstance(one, str) for one in old + new):
            yield from _texts(name, old, new, where)
        else:
            yield Change(path=where, kind=CHANGED, before=old, after=new, weaker=_why(name, old, new))


def _entries(name: str, old: list[dict[str, Any]], new: list[dict[str, Any]], path: str) -> Iterator[Change]:
    before, after = _named(name, old), _named(name, new)
    for key in sorted(before.keys() | after.keys()):
        where = f"{path}[{key}]"
        if key not in after:
            why = _FEWER_ENTRIES.get(name, "")
            if name == "tcb_rules" and before[key]["tee"] not in {one["tee"] for one in new}:
                why = ""  # without any rule its platforms are refused
            yield Change(path=where, kind=REMOVED, before=before[key], after=None, weaker=why)
        elif key not in before:
            why = _MORE_ENTRIES.get(name, "")
            if name == "tcb_rules" and after[key]["tee"] not in {one["tee"] for one in old}:
                why = "platforms of another TEE are judged, and accepted"
            yield Change(path=where, kind=ADDED, before=None, after=after[key], weaker=why)
        else:
            yield from _record(before[key], after[key], where)


def _named(name: str, entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Entries by what tells them apart; of several with one name, the later ones with their number."""
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        key, number = "/".join(str(entry[one]) for one in _KEYS[name]), 2
        name_of_it = key
        while name_of_it in found:
            name_of_it, number = f"{key}#{number}", number + 1
        found[name_of_it] = entry
    return found


def _texts(name: str, old: list[str], new: list[str], path: str) -> Iterator[Change]:
    gone, come = sorted(set(old) - set(new)), sorted(set(new) - set(old))
    for one in gone:
        yield Change(path=path, kind=REMOVED, before=one, after=None, weaker=_FEWER_ENTRIES.get(name, ""))
    for one in come:
        yield Change(path=path, kind=ADDED, before=None, after=one, weaker=_MORE_ENTRIES.get(name, ""))
    if not gone and not come:  # another order, or repetitions
        yield Change(path=path, kind=CHANGED, before=old, after=new)


def _why(name: str, old: Any, new: Any) -> str:
    """Why a changed value trusts more or protects less; "" where it does not."""
    if name.startswith("unsafe_"):
        return "a protection is given up" if new else ""
    if name == "min_first_mile":
        return "less of the way from the sensor is proven" if _grade(new) < _grade(old) else ""
    if name in _HIGHER and (new is None or (old is not None and new > old)):
        return _HIGHER[name]
    if name in _LOWER and new < old:
        return _LOWER[name]
    return _ALWAYS.get(name, "")


def _grade(name: str) -> int:
    """Grades in order; one that nobody knows refuses everything."""
    return FIRST_MILE_GRADES.index(name) if name in FIRST_MILE_GRADES else len(FIRST_MILE_GRADES)
