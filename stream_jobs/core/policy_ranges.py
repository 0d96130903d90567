"""Numbers of a policy that the core can work with. Where policies are opened, others are refused: a signed one, too."""

from __future__ import annotations

from power_model.grid import Grid
from schemas.errors import ConfigError
from schemas.records import DomainRule, Limits, Policy

_PPM = 1_000_000
MAX_HISTORY_WINDOWS = 1_440
"""Windows of history at most: a day of minutes. A restart reads as many."""
MAX_MS = 7 * 86_400_000
"""A week, ms: more than any length of time in a domain's rule."""

DOMAIN_RANGES: dict[str, tuple[int, int]] = {
    "partition": (0, 2**31 - 1),
    "limit_w": (1, 10**12),
    "window_ms": (1, MAX_MS),
    "pane_ms": (1, MAX_MS),
    "grace_ms": (0, MAX_MS),
    "quantile_ppm": (1, _PPM - 1),
    "confidence_ppm": (1, _PPM - 1),
    "horizon_ms": (0, MAX_MS),
    "quorum_ppm": (0, _PPM),
    "k_min_hosts": (1, 2**31 - 1),
    "k_min_tenants": (1, 2**31 - 1),
    "max_colluding_ppm": (0, _PPM),
    "drift_cap_ppm": (0, _PPM),
    "history_windows": (0, MAX_HISTORY_WINDOWS),
}
"""Least and largest value of every number of a `DomainRule`."""

LIMIT_RANGES: dict[str, tuple[int, int]] = {
    "lateness_ms": (0, 2**62),
    "max_idle_ms": (1, 2**62),
    "evidence_interval_windows": (1, 2**31 - 1),
    "clock_skew_tolerance_ms": (0, 2**62),
    "max_epsilon_micro": (1, 2**62),
    "max_control_age_ms": (0, 2**62),
}
"""The same of `Limits`; what is reserved may be anything."""


def check_ranges(policy: Policy) -> None:
    """Raise ConfigError CONFIG_INVALID, naming the field, if a number of the policy is outside its range."""
    _demand("sample_hz", policy.sample_hz, 1, 1_000)
    _check("limits", policy.limits, LIMIT_RANGES)
    for number, rule in enumerate(policy.domains):
        where = f"domains[{number}]"
        _check(where, rule, DOMAIN_RANGES)
        for place, horizon_ms in enumerate(rule.forecast_horizons_ms):
            _demand(f"{where}.forecast_horizons_ms[{place}]", horizon_ms, 1, MAX_MS)
        if rule.window_ms % rule.pane_ms:
            raise ConfigError("a window is a whole number of panes", field=f"{where}.pane_ms")
        if rule.pane_ms * policy.sample_hz % 1000:
            raise ConfigError("a pane is a whole number of samples", field=f"{where}.pane_ms")
    for number, model in enumerate(policy.models):
        Grid(model.edges_w)
        if not model.clip_low_w < model.clip_high_w:
            raise ConfigError("a clip range goes up", field=f"models[{number}].clip_high_w")
    models = {model.model for model in policy.models}
    for number, host in enumerate(policy.hosts):
        for place, one in enumerate(host.classes):
            where = f"hosts[{number}].classes[{place}]"
            _demand(f"{where}.gpus", one.gpus, 1, 2**31 - 1)
            _demand(f"{where}.capacity_w", one.capacity_w, 1, 10**12)
            if one.model not in models:
                raise ConfigError(f"{one.model} is none of the policy's models", field=f"{where}.model")


def _check(where: str, record: DomainRule | Limits, ranges: dict[str, tuple[int, int]]) -> None:
    for name, (low, high) in ranges.items():
        _demand(f"{where}.{name}", getattr(record, name), low, high)


def _demand(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{value} is not within {low} to {high}", field=field)
