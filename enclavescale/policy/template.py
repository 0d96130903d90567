"""The template of a policy: complete, commented, and trusting nothing until it is filled in."""

from __future__ import annotations

from stream_jobs.core.policies import CORE_VERSION

_TEMPLATE = """\
# Policy of a fleet: what is trusted, enrolled and demanded. As it stands it trusts nobody and names no machine: fill in
# what is marked, then
#
#   enclavescale policy lint FILE                       everything that is wrong with it
#   enclavescale policy sign FILE --key KEY -o OUT      by whoever holds the signer's key
#   enclavescale policy apply OUT --policy-signer …     onto the policy topic
#
# Keys are fields of the signed record (schemas/avsc/SignedPolicy.v1.avsc); unknown and missing ones are errors. Bytes
# are hexadecimal. Points in time are UTC milliseconds, or dates with a zone: 2026-01-31T12:00:00Z.
# Lines that begin with # and no space are examples.

version = 1

# Version of the core that decides under this policy; workers with another one leave it alone.
core_version = "@CORE_VERSION@"

# First window start it may apply to; 0: at once. A switch to it stands in each domain's partition, and counts from the
# first window after that.
effective_from_ms = 0

# Filled in by `policy sign`: a counter above that of every policy before it (--counter), the time of signing, and an
# end soon after it (--valid-days). Workers fail closed at the end, so the successor is signed and applied before it.
#counter = 1
#issued_at_ms = 2026-01-31T12:00:00Z
#not_after_ms = 2026-02-07T12:00:00Z

# Where readings may come from: "nvml", "dcgm". "trace" and "simulated" are no measurements; for demonstrations only.
accepted_sources = ["nvml"]

# "instant"; "average" costs one event eleven times the privacy loss; "legacy" may be either.
accepted_sampler_modes = ["instant"]

# Lowest grade of the way from sensor to enclave: "NONE", "GPU_ATTESTED" or "SPDM_MEASURED". Both need gpu_key_digests.
min_first_mile = "GPU_ATTESTED"

# Samples per second.
sample_hz = 10

# Never outside of a demonstration.
unsafe_allow_unevaluated_tcb = false
unsafe_allow_unenrolled_platform = false
unsafe_allow_create_time = false

# FILL IN, below: without them everything is refused. Replace each empty list by its tables.
domains = []
hosts = []
aggregators = []
models = []
measurements = []
tcb_rules = []

# Roots beyond those built in (Intel, AMD, NVIDIA); SPDM devices need their vendors'.
trust_roots = []

# What is trusted no longer: kind "host", "session", "measurement" (label), "platform", "gpu" (digest of its leaf key)
# or "root" (label). Entries deny and never allow; take none out while windows of its time may still be revised.
revoked = []
#[[revoked]]
#kind = "platform"
#id = "00112233445566778899aabbccddeeff"
#reason = "stolen"

[limits]
# Event time for which a closed window may be revised, ms.
lateness_ms = 600000

# A domain whose hosts are silent for so long is closed, ms. Above its windows and grace by far.
max_idle_ms = 300000

# Hosts repeat their evidence after so many windows.
evidence_interval_windows = 6

# A window may end at most so much after its record's append time, ms.
clock_skew_tolerance_ms = 5000

# Reserved.
evidence_checks_per_window = 256

# Largest privacy loss that a host may state per window and event, in millionths.
max_epsilon_micro = 1000000

# Control records older than this when they are appended are refused, ms.
max_control_age_ms = 60000

# Greatest age of the beacon in evidence at a window's end, ms. Left out: no beacon is demanded, and evidence may have
# been made in advance; then say why in the key below.
max_beacon_age_ms = 7200000
#max_beacon_age_ms_absent_reason = "…"

# Greatest age of the collateral set in force, ms. Left out: its items' own validity decides.
#max_collateral_age_ms = 86400000
max_collateral_age_ms_absent_reason = "the items' own validity decides"

# -- power domains, sorted by name ------------------------------------------------------------------------------------
#[[domains]]
#domain = "hall-a"
#partition = 0                     # of the reports topic: one for each domain, and never another
#limit_w = 80000                   # electrical limit, W
#window_ms = 60000                 # a divisor of the day
#pane_ms = 1000                    # a divisor of the window, a whole number of samples
#grace_ms = 60000                  # the watermark stays so far behind the hosts' median
#quantile_ppm = 990000             # the margin leaves room for this quantile of power
#confidence_ppm = 950000           # of the margin's interval
#horizon_ms = 0                    # 0: margin of the window itself; else so long after it
#quorum_ppm = 800000               # share of the enrolled capacity that must report
#k_min_hosts = 5                   # figures of fewer hosts are withheld
#k_min_tenants = 2                 # and of fewer tenants
#max_colluding_ppm = 250000        # these three and the horizons may be left out
#drift_cap_ppm = 7500
#history_windows = 30
#forecast_horizons_ms = [1000, 10000, 60000]

# -- GPU models, sorted by model --------------------------------------------------------------------------------------
#[[models]]
#model = "NVIDIA H100 80GB HBM3"   # as NVML says it
#edges_w = [70, 140, 210, 280, 350, 420, 490, 560, 630]    # inner edges of the states
#clip_low_w = 0
#clip_high_w = 840                 # above what a board draws in its peaks: readings beyond are clipped

# -- hosts, sorted by host_id -----------------------------------------------------------------------------------------
#[[hosts]]
#host_id = "hall-a-host000"
#domain = "hall-a"
#tenant = "tenant-a"
#failure_domain = "hall-a-rack0"   # rack, feed or other part that fails as one
#platform_ids = ["00112233445566778899aabbccddeeff"]       # PPID, platform instance id or CHIP_ID
#gpu_key_digests = ["…"]           # SHA-256 of each device's leaf key; `enclavescale verify` prints both
#classes = [
#{ model = "NVIDIA H100 80GB HBM3", gpus = 8, capacity_w = 5600 },
#]

# -- workers, sorted by host_id ---------------------------------------------------------------------------------------
#[[aggregators]]
#host_id = "aggregator-0"
#platform_ids = ["ffeeddccbbaa99887766554433221100"]

# -- measured code; for each role and TEE at least one, of each everything must match ---------------------------------
#[[measurements]]
#label = "host agent 1.4, image of 2026-03-01"
#role = "host"                     # host or aggregator
#tee = "tdx"                       # tdx, sgx, snp; nvidia, spdm for devices of hosts
#registers = [
#{ register = "mrtd", value = "…48 bytes…", mask_absent_reason = "all bits count" },
#{ register = "rtmr1", value = "…48 bytes…", mask = "…48 bytes…" },
#{ register = "rtmr2", value = "…48 bytes…", mask_absent_reason = "all bits count" },
#]

# -- what the TCB of Intel's TEEs must be; guests of AMD name reported_tcb_at_least in their measurement --------------
#[[tcb_rules]]
#tee = "tdx"
#accepted_statuses = ["UpToDate"]
#grace_days = 0                    # days for which a platform that has fallen behind is tolerated
#allowed_advisories = []           # as "INTEL-SA-01036"
#min_tcb_evaluation_number = 0

# -- roots -------------------------------------------------------------------------------------------------------------
#[[trust_roots]]
#label = "power sensor's vendor"
#tee = "spdm"                      # tdx, sgx, snp, nvidia, spdm
#certificate_der = "30…"           # hexadecimal, or the PEM block between three quotation marks
#simulated = false                 # true: no hardware; power that rests on it is shown apart
"""


def template() -> str:
    """The template's text: a document that can be read, and that lint refuses."""
    return _TEMPLATE.replace("@CORE_VERSION@", CORE_VERSION)
