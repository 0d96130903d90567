"""One window's output and its manifests, from the domain's state. Pure and in fixed order."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

from power_model import exact
from schemas.codec import encode_manifest, encode_output, output_preimage, record_digest
from schemas.records import (
    CodeCount,
    Coverage,
    Dilution,
    EpsilonStatement,
    FleetPower,
    Forecast,
    Interval,
    LayerResult,
    OffsetRange,
    OutputSource,
    PowerShare,
    Ramp,
    WindowManifest,
)
from stream_jobs.core.aggregate import ClassFigures, HostFigures, class_figures, host_figures
from stream_jobs.core.checks import NOISE_TAIL
from stream_jobs.core.coverage import coverage_of, dilution_of, unseen
from stream_jobs.core.effects import Emission
from stream_jobs.core.history import enrolled_shares
from stream_jobs.core.influence import influence_of
from stream_jobs.core.margin import (
    Estimate,
    estimate_of,
    margin_of,
    mean_interval,
    quantiles,
    reported_mean,
    synchrony_of,
)
from stream_jobs.core.merkle import merkle_root
from stream_jobs.core.outlook import PaneHistory, forecasts, power_ahead, ramps
from stream_jobs.core.policies import CORE_VERSION
from stream_jobs.core.reject import LAYERS, Judgement, judge
from stream_jobs.core.tails import HONEST_TAIL
from stream_jobs.core.windows import Tally, Window

MAX_HORIZONS = 16
"""Forecast horizons of one domain at most, the nearest ones."""

MANIFEST_CHUNK_DIGESTS = 8192
"""Digests per manifest record: 256 KiB, half of what the topic takes."""


PHYSICS_HONEST_RATES = {
    "COUNTS_IMPLAUSIBLE": 2 * NOISE_TAIL,
    "ENERGY_IMPLAUSIBLE": NOISE_TAIL,
    "POWER_IMPLAUSIBLE": 2 * NOISE_TAIL,
}
"""Probability per class, at most, with which the physics layer refuses an honest report, by code."""


def _figures(window: Window, judgement: Judgement) -> list[ClassFigures]:
    return [
        class_figures(window, key, share_w, judgement.corrections[key]) for key, _, share_w in enrolled_shares(window)
    ]


def _estimate(window: Window, hosts: HostFigures, judgement: Judgement, figures: list[ClassFigures]) -> Estimate:
    rest = unseen(window, hosts, judgement, figures)
    ticks_per_pane = window.view.policy.sample_hz * window.rule.pane_ms // 1000
    return estimate_of(figures, rest.variance_w2, ticks_per_pane, window.rule, silent_w=rest.power_w)


def _outlook(
    window: Window, figures: list[ClassFigures], estimate: Estimate, coverage: Coverage
) -> tuple[tuple[Forecast, ...], tuple[Ramp, ...], Interval | None]:
    """Forecasts, ramps, and the quantile of the power at the margin's horizon if that lies ahead."""
    panes_w = tuple(
        math.fsum([*column, estimate.silent_w]) for column in zip(*(one.panes_w for one in figures), strict=True)
    )
    noise_w2 = math.fsum(one.pane_variance_w2 for one in figures)
    now = PaneHistory(window.start_ms, window.rule.pane_ms, panes_w, noise_w2)
    rule, history = window.rule, window.history.panes if window.history else ()
    capacity_w = coverage.enrolled_capacity_w
    horizons_ms = sorted({horizon for horizon in rule.forecast_horizons_ms if horizon > 0})[:MAX_HORIZONS]
    coming = forecasts(
        history,
        now,
        fast_w=estimate.swing.fast_w,
        capacity_w=capacity_w,
        horizons_ms=horizons_ms,
        coverage_w2=estimate.coverage_w2,
        aside_w=(estimate.peak_down_w, estimate.peak_up_w),
    )
    ahead = None
    if rule.horizon_ms > 0:
        ahead = power_ahead(
            history,
            now,
            fast_w=estimate.swing.fast_w,
            capacity_w=capacity_w,
            horizon_ms=rule.horizon_ms,
            quantile_ppm=rule.quantile_ppm,
            confidence_ppm=rule.confidence_ppm,
            coverage_w2=estimate.coverage_w2,
        )
    missing_w = coverage.enrolled_capacity_w - coverage.reporting_capacity_w
    missing_ppm = missing_w * 1_000_000 // max(1, coverage.enrolled_capacity_w)
    return coming, ramps(now, hosts=coverage.reporting_hosts, missing_ppm=missing_ppm), ahead


def _layers(judgement: Judgement) -> tuple[LayerResult, ...]:
    """Every check with what it found and how often it meets honest hosts; physics refuses, so that none is left."""
    honest = {code: (layer, HONEST_TAIL) for code, layer in LAYERS.items()}
    honest |= {code: ("physics", rate) for code, rate in PHYSICS_HONEST_RATES.items()}
    return tuple(
        LayerResult(
            layer=layer,
            code=code,
            hosts=judgement.hosts[code],
            capacity_w=judgement.capacity_w[code],
            honest_rate_pico=round(rate * 1e12),
        )
        for layer, code, rate in sorted((layer, code, rate) for code, (layer, rate) in honest.items())
    )


def _shares(window: Window, hosts: HostFigures) -> tuple[PowerShare, ...]:
    """Power by grade, source and root: sums over the hosts of each origin first, which are few."""
    entries = window.entries
    codes = entries.origin_codes()
    groups: dict[tuple[str, str, bool], list[tuple[int, int, float, float]]] = defaultdict(list)
    for code, (source, root, simulated, first_mile) in enumerate(entries.origins):
        rows = hosts.rows[codes == code]
        sums = (
            rows.size,
            int(hosts.capacity_w[rows].sum()),
            exact.total(hosts.mean_w[rows]),
            exact.total(hosts.variance_w2[rows]),
        )
        for dimension, key in (("first_mile", first_mile), ("source", source), ("root", root)):
            groups[dimension, key, simulated].append(sums)
    return tuple(_share(*which, sums) for which, sums in sorted(groups.items()))


def _share(dimension: str, key: str, simulated: bool, sums: list[tuple[int, int, float, float]]) -> PowerShare:
    counts, capacities_w, means_w, variances_w2 = zip(*sums, strict=True)
    mean = reported_mean(math.fsum(means_w), math.fsum(variances_w2))
    return PowerShare(
        dimension=dimension,
        key=key,
        simulated=simulated,
        hosts=sum(counts),
        capacity_w=sum(capacities_w),
        mean_w=mean.value_w,
        low_w=mean.low_w,
        high_w=mean.high_w,
    )


def _counts(counter: Counter[str]) -> tuple[CodeCount, ...]:
    return tuple(CodeCount(code=code, count=counter[code]) for code in sorted(counter) if counter[code])


def _manifests(window: Window, tally: Tally, close_offset: int) -> tuple[bytes, tuple[bytes, ...]]:
    digests = window.entries.digests()
    root = merkle_root(digests)
    chunks = max(1, -(-len(digests) // MANIFEST_CHUNK_DIGESTS))
    result = []
    for chunk in range(chunks):
        part = digests[chunk * MANIFEST_CHUNK_DIGESTS : (chunk + 1) * MANIFEST_CHUNK_DIGESTS]
        manifest = WindowManifest(
            domain=window.rule.domain,
            window_start_ms=window.start_ms,
            window_end_ms=window.end_ms,
            revision=window.revision,
            chunk=chunk,
            chunks=chunks,
            accepted_digests=b"".join(part),
            accepted_count=len(digests),
            accepted_root=root,
            refused=_counts(tally.refused),
            refused_count=tally.refused_tree.count,
            refused_root=tally.refused_tree.root(),
            undecodable=tuple(OffsetRange(first_offset=a, last_offset=b) for a, b in tally.undecodable),
            close_offset=close_offset,
            witnesses=() if chunk else tuple(tally.log.witnesses),
        )
        result.append(encode_manifest(manifest))
    return root, tuple(result)


def _withheld(coverage: Coverage, dilution: Dilution, figures: list[ClassFigures]) -> str | None:
    if not figures or not coverage.reporting_hosts:
        return "no class has readings"
    if not dilution.met:
        return "fewer hosts or tenants than k_min: withheld to protect single workloads"
    return None


def _source(
    window: Window, tally: Tally, topic: str, partition: int, close_offset: int, close_reason: str
) -> OutputSource:
    """Where in the log an output stands."""
    return OutputSource(
        topic=topic,
        partition=partition,
        first_offset=window.entries.first_offset(),
        first_offset_absent_reason=None if len(window.entries) else "no report is left",
        close_offset=close_offset,
        close_reason=close_reason if window.revision == 0 else "revision",
        gap_ranges=tally.gap_ranges,
        gap_records=tally.gap_records,
        records=tally.log.records,
        log_digest=tally.log.digest(),
    )


def emission(
    window: Window,
    tally: Tally,
    *,
    topic: str,
    partition: int,
    close_offset: int,
    close_reason: str,
    prev_output: bytes | None,
    collateral_digest: bytes | None = None,
) -> Emission:
    """Build the output of `window` at the position `close_offset`. Advances the window's revision.

    `collateral_digest`: of the set in force there.
    """
    window.revision += 1
    judgement = judge(window)
    hosts, entries = host_figures(window, judgement.classes), window.entries
    coverage, dilution = coverage_of(window, hosts), dilution_of(window, hosts)
    figures = _figures(window, judgement)
    withheld = _withheld(coverage, dilution, figures)
    estimate = None if withheld else _estimate(window, hosts, judgement, figures)
    coming, moving, ahead = _outlook(window, figures, estimate, coverage) if estimate else ((), (), None)
    margin_reason = withheld or (None if coverage.quorum_met else "coverage below quorum")
    root, manifests = _manifests(window, tally, close_offset)
    first_revision = "first output of this window" if window.last_digest is None else None
    output = FleetPower(
        domain=window.rule.domain,
        window_start_ms=window.start_ms,
        window_end_ms=window.end_ms,
        revision=window.revision,
        prev_revision_digest=window.last_digest,
        prev_revision_digest_absent_reason=first_revision,
        prev_output_digest=prev_output,
        prev_output_digest_absent_reason=None if prev_output else "first output of the domain, or since it was idle",
        classes=() if withheld else tuple(one.record for one in figures),
        mean=mean_interval(estimate) if estimate else None,
        mean_absent_reason=withheld,
        quantiles=quantiles(estimate) if estimate else (),
        ramps=moving,
        margin=margin_of(window, estimate, ahead, margin_reason),
        forecasts=coming,
        coverage=coverage,
        power_by=() if withheld else _shares(window, hosts),
        accepted=len(entries),
        late_accepted=entries.late,
        duplicates=tally.refused["DUPLICATE"],
        late_refused=tally.refused["LATE"],
        refused=_counts(tally.refused),
        flagged=_counts(entries.flagged),
        layers=_layers(judgement),
        set_aside=() if withheld else judgement.set_aside,
        synchrony=synchrony_of(estimate, coverage.reporting_gpus) if estimate else None,
        synchrony_absent_reason=withheld,
        history_windows=window.history.windows if window.history else 0,
        influence=influence_of(window, judgement),
        dilution=dilution,
        privacy=EpsilonStatement(
            mode="EDGE",
            epsilon_max_micro=entries.epsilon_micro,
            w_event_windows=entries.w_event_windows,
            w_event_epsilon_max_micro=entries.w_event_epsilon_micro,
        ),
        policy_digest=window.view.digest,
        policy_counter=window.view.policy.counter,
        collateral_digest=collateral_digest,
        collateral_digest_absent_reason=None if collateral_digest else "no collateral is in force",
        core_version=CORE_VERSION,
        source=_source(window, tally, topic, partition, close_offset, close_reason),
        manifest_root=root,
        refused_root=tally.refused_tree.root(),
    )
    output_bytes = encode_output(output)
    digest = record_digest(output_preimage(output_bytes))
    window.last_digest = digest
    window.dirty = False
    window.rest()
    return Emission(output=output, output_bytes=output_bytes, digest=digest, manifests=manifests)
