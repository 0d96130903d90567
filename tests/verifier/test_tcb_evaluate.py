"""TCB evaluation says what Intel's library says: on every case it has judged, and step by step."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.verifier.corpus import Case
from tests.verifier.tcbs import (
    MIDDLE,
    NEW,
    OLD,
    identity,
    inputs,
    judge,
    judged,
    level,
    module,
    padded,
    svn_level,
    tcb_info,
)
from verifier.errors import TcbNotSupported, TdxModuleMismatch
from verifier.tcb.evaluate import converge, evaluate, relaunch
from verifier.tcb.status import Shortfall, TcbState, TcbStatus

S = TcbStatus
PLATFORM = [one for one in S if not one.startswith("TDRelaunch")]
PARTS = [S.UP_TO_DATE, S.OUT_OF_DATE, S.REVOKED]
THREE = (
    level(5, 5, date=NEW),
    level(4, 5, status="OutOfDate", date=MIDDLE, advisories=("INTEL-SA-2",)),
    level(3, 5, status="OutOfDate", date=OLD, advisories=("INTEL-SA-1", "INTEL-SA-2")),
)
TWO_MODULES = (
    module("TDX_01", svn_level(6), svn_level(4, "OutOfDate", MIDDLE, "INTEL-SA-3"), svn_level(2, "Revoked", OLD)),
    module("TDX_0A", svn_level(1)),
)


@pytest.mark.parametrize("case", judged(), ids=lambda case: case.name)
def test_intels_library_says_the_same(case: Case) -> None:
    report = evaluate(**inputs(case))
    said = case.entry["intel_qvl"]

    def as_said(status: TcbStatus, state: TcbState) -> dict[str, Any]:
        date = None if state.tcb_date_ms is None else state.tcb_date_ms // 1000
        return {"tcb_date": date, "advisory_ids": sorted(state.advisory_ids), "status": str(status)}

    for name, ours in (
        ("launch", as_said(report.status, report.launch)),
        ("current", as_said(report.current.status, report.current)),
    ):
        assert ours == said[name] | {"advisory_ids": sorted(set(said[name]["advisory_ids"]))}, name
    assert (report.tcb_date_ms, report.advisory_ids) == (report.launch.tcb_date_ms, report.launch.advisory_ids)


class TestPlatform:
    def test_the_first_level_that_is_reached_counts(self) -> None:
        assert judge(tcb_info(*THREE), 9, 9).status is S.UP_TO_DATE
        report = judge(tcb_info(*THREE), 4, 9)
        assert (report.status, report.tcb_date_ms, report.advisory_ids) == (S.OUT_OF_DATE, MIDDLE, ("INTEL-SA-2",))

    @pytest.mark.parametrize("component", range(16))
    def test_every_component_counts(self, component: int) -> None:
        needs = [3] * 16
        info = tcb_info(level(*needs), level(status="OutOfDate", date=OLD))
        assert judge(info, *needs).status is S.UP_TO_DATE
        needs[component] = 2
        report = judge(info, *needs)
        assert report.status is S.OUT_OF_DATE
        assert report.launch.shortfalls == (
            Shortfall(part="platform", component=f"SGX component {component + 1}", has=2, needs=3),
        )

    def test_pcesvn_counts(self) -> None:
        info = tcb_info(level(5, pce_svn=11), level(5, pce_svn=5, status="ConfigurationNeeded", date=OLD))
        report = judge(info, 5, pce_svn=10)
        assert report.status is S.CONFIGURATION_NEEDED
        assert report.launch.shortfalls == (Shortfall(part="platform", component="PCESVN", has=10, needs=11),)

    def test_below_every_level_is_no_status(self) -> None:
        with pytest.raises(TcbNotSupported, match="SGX component 1 has 2, needs 3") as caught:
            judge(tcb_info(*THREE), 2, 9)
        assert caught.value.field == "platform"

    def test_no_levels_at_all(self) -> None:
        with pytest.raises(TcbNotSupported):
            judge(tcb_info(), 9)

    @pytest.mark.parametrize("length", [0, 15, 17])
    def test_a_level_of_another_length_is_never_reached(self, length: int) -> None:
        short = level()
        object.__setattr__(short, "sgx_svns", (0,) * length)
        with pytest.raises(TcbNotSupported):
            judge(tcb_info(short), 9)

    def test_a_status_of_convergence_is_none_of_a_document(self) -> None:
        with pytest.raises(TcbNotSupported, match="TDRelaunchAdvised"):
            judge(tcb_info(level(status="TDRelaunchAdvised")), 9)


class TestTdx:
    INFO = tcb_info(
        level(5, tdx=(5, 0, 7)),
        level(5, tdx=(3, 0, 6), status="OutOfDate", date=OLD),
        tee="tdx",
        tdx_module_identities=TWO_MODULES,
    )

    def test_without_an_identity_all_tdx_components_count(self) -> None:
        assert judge(self.INFO, 5, td=(5, 0, 7)).status is S.UP_TO_DATE
        report = judge(self.INFO, 5, td=(4, 0, 7))
        assert report.status is S.OUT_OF_DATE
        assert report.launch.shortfalls == (Shortfall(part="platform", component="TDX component 1", has=4, needs=5),)
        assert [part.part for part in report.launch.parts] == ["platform", "qe"]

    def test_with_an_identity_the_modules_own_components_do_not(self) -> None:
        report = judge(self.INFO, 5, td=(6, 1, 7))
        assert report.status is S.UP_TO_DATE
        assert [part.part for part in report.launch.parts] == ["platform", "tdx_module", "qe"]
        old = judge(self.INFO, 5, td=(4, 1, 6))
        assert [one.component for one in old.launch.shortfalls] == ["TDX component 3", "TDX module TDX_01 ISVSVN"]

    def test_an_up_to_date_module_hides_no_platform_that_is_behind(self) -> None:
        report = judge(self.INFO, 5, td=(6, 1, 6))
        assert (report.status, report.tcb_date_ms) == (S.OUT_OF_DATE, OLD)

    def test_a_module_that_is_behind_lowers_the_platform(self) -> None:
        report = judge(self.INFO, 5, td=(4, 1, 7))
        assert (report.status, report.tcb_date_ms, report.advisory_ids) == (S.OUT_OF_DATE, MIDDLE, ("INTEL-SA-3",))

    def test_a_revoked_module_revokes(self) -> None:
        assert judge(self.INFO, 5, td=(3, 1, 7)).status is S.REVOKED

    def test_a_module_below_every_level(self) -> None:
        with pytest.raises(TcbNotSupported) as caught:
            judge(self.INFO, 5, td=(1, 1, 7))
        assert caught.value.field == "tdx_module"

    def test_the_major_version_is_hexadecimal(self) -> None:
        assert judge(self.INFO, 5, td=(1, 10, 7)).status is S.UP_TO_DATE

    def test_a_module_nobody_lists(self) -> None:
        with pytest.raises(TdxModuleMismatch) as caught:
            judge(self.INFO, 5, td=(9, 2, 7))
        assert caught.value.field == "tee_tcb_svn"

    @pytest.mark.parametrize("version", [0, 1])
    def test_foreign_signer_and_attributes(self, version: int) -> None:
        with pytest.raises(TdxModuleMismatch):
            judge(self.INFO, 5, td=(6, version, 7), mrsignerseam=bytes(47) + b"\x01")
        with pytest.raises(TdxModuleMismatch):
            judge(self.INFO, 5, td=(6, version, 7), seam_attributes=bytes(7) + b"\x01")

    def test_attributes_must_be_zero_even_where_tcb_info_says_otherwise(self) -> None:
        odd = tcb_info(level(tdx=()), tee="tdx", tdx_module=module(None, attributes=b"\x01" + bytes(7)))
        for attributes in (bytes(8), b"\x01" + bytes(7)):
            with pytest.raises(TdxModuleMismatch):
                judge(odd, 5, td=(), seam_attributes=attributes)

    def test_signer_of_the_identity_replaces_that_of_the_module(self) -> None:
        info = tcb_info(
            level(tdx=()), tee="tdx", tdx_module_identities=(module("TDX_01", svn_level(0), mrsigner=b"\x07" * 48),)
        )
        assert judge(info, 1, td=(0, 1), mrsignerseam=b"\x07" * 48).status is S.UP_TO_DATE
        with pytest.raises(TdxModuleMismatch):
            judge(info, 1, td=(0, 1))

    def test_tcb_info_without_tdx_components_matches_no_td(self) -> None:
        with pytest.raises(TcbNotSupported):
            judge(tcb_info(level(5), tee="tdx"), 5, td=())

    def test_a_programmers_mistake_is_a_value_error(self) -> None:
        with pytest.raises(ValueError, match="TEE_TCB_SVN"):
            judge(self.INFO, 5)


class TestQuotingEnclave:
    def test_levels(self) -> None:
        enclave = identity(svn_level(8), svn_level(6, "OutOfDate", MIDDLE, "INTEL-SA-4"), svn_level(4, "Revoked", OLD))
        info = tcb_info(level())
        assert judge(info, qe_identity=enclave, qe=9).status is S.UP_TO_DATE
        behind = judge(info, qe_identity=enclave, qe=7)
        assert (behind.status, behind.tcb_date_ms, behind.advisory_ids) == (S.OUT_OF_DATE, MIDDLE, ("INTEL-SA-4",))
        assert behind.launch.shortfalls == (Shortfall(part="qe", component="QE ISVSVN", has=7, needs=8),)
        assert judge(info, qe_identity=enclave, qe=4).status is S.REVOKED
        with pytest.raises(TcbNotSupported, match="needs 4") as caught:
            judge(info, qe_identity=enclave, qe=3)
        assert caught.value.field == "qe"

    def test_a_status_that_no_enclave_has(self) -> None:
        with pytest.raises(TcbNotSupported):
            judge(tcb_info(level()), qe_identity=identity(svn_level(1, "SWHardeningNeeded")))

    def test_numbers_of_both_documents_are_reported(self) -> None:
        report = judge(tcb_info(level()))
        assert (report.tcb_evaluation_number, report.qe_evaluation_number) == (17, 18)


@pytest.mark.parametrize(("platform", "tdx", "qe"), list(product(PLATFORM, PARTS, PARTS)))
def test_convergence_is_the_table(platform: TcbStatus, tdx: TcbStatus, qe: TcbStatus) -> None:
    """ATTESTATION.md §5, written the other way round: what the parts allow, from the worst to the best."""
    if S.REVOKED in (platform, tdx, qe):
        expected = S.REVOKED
    elif S.OUT_OF_DATE in (tdx, qe) and "Configuration" in platform:
        expected = S.OUT_OF_DATE_CONFIGURATION_NEEDED
    elif S.OUT_OF_DATE in (tdx, qe):
        expected = S.OUT_OF_DATE
    else:
        expected = platform
    assert converge(platform, [tdx, qe]) is expected


@pytest.mark.parametrize(("launch", "current"), list(product(PLATFORM, PLATFORM)))
def test_relaunch_is_advised_only_where_it_helps(launch: TcbStatus, current: TcbStatus) -> None:
    helps = launch.startswith("OutOfDate") and not current.startswith(("OutOfDate", "Revoked"))
    if not helps:
        assert relaunch(launch, current) is launch
    elif "Configuration" in launch + current:
        assert relaunch(launch, current) is S.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED
    else:
        assert relaunch(launch, current) is S.TD_RELAUNCH_ADVISED


class TestRelaunch:
    INFO = TestTdx.INFO

    def test_launch_and_current_stand_apart(self) -> None:
        report = judge(self.INFO, 5, td=(4, 1, 7), td_now=(6, 1, 7))
        assert (report.status, report.launch.status, report.current.status) == (
            S.TD_RELAUNCH_ADVISED,
            S.OUT_OF_DATE,
            S.UP_TO_DATE,
        )
        assert (report.tcb_date_ms, report.advisory_ids) == (MIDDLE, ("INTEL-SA-3",)), "of the launch, as Intel says"

    def test_a_worse_current_status_does_not_show_in_the_result(self) -> None:
        report = judge(self.INFO, 5, td=(6, 1, 7), td_now=(4, 1, 7))
        assert (report.status, report.current.status) == (S.UP_TO_DATE, S.OUT_OF_DATE)

    def test_a_current_module_that_matches_nothing_is_no_status(self) -> None:
        for now in ((1, 1, 7), (9, 2, 7), (6, 1, 5)):
            with pytest.raises(TcbNotSupported):
                judge(self.INFO, 5, td=(6, 1, 7), td_now=now)

    def test_signer_is_that_of_the_launched_module(self) -> None:
        foreign = (TWO_MODULES[0], module("TDX_0A", svn_level(1), mrsigner=b"\x07" * 48))
        info = tcb_info(*self.INFO.levels, tee="tdx", tdx_module_identities=foreign)
        assert judge(info, 5, td=(6, 1, 7), td_now=(1, 10, 7)).status is S.UP_TO_DATE

    def test_without_a_second_svn_both_are_one(self) -> None:
        report = judge(self.INFO, 5, td=(6, 1, 7))
        assert report.current is report.launch


class TestHowFarBehind:
    def test_superseded_when_the_next_newer_level_came(self) -> None:
        platform = judge(tcb_info(*THREE), 3, 5).launch.parts[0]
        assert (platform.tcb_date_ms, platform.superseded_ms, platform.newest_ms) == (OLD, MIDDLE, NEW)
        assert judge(tcb_info(*THREE), 4, 5).launch.parts[0].superseded_ms == NEW

    def test_up_to_date_is_not_superseded(self) -> None:
        platform = judge(tcb_info(level(6, status="SWHardeningNeeded"), level(5, date=OLD)), 5).launch.parts[0]
        assert (platform.status, platform.superseded_ms) == (S.UP_TO_DATE, None)

    def test_among_levels_of_one_day_it_is_that_day(self) -> None:
        info = tcb_info(level(6), level(5, status="OutOfDate", date=NEW))
        assert judge(info, 5).launch.parts[0].superseded_ms == NEW
        soft = tcb_info(level(6), level(5, status="SWHardeningNeeded", date=NEW))
        assert judge(soft, 5).launch.parts[0].superseded_ms is None, "not out of date"

    def test_undated_levels(self) -> None:
        report = judge(
            tcb_info(level(6), level(5, status="OutOfDate", date=None)),
            5,
            qe_identity=identity(svn_level(8, date=None)),
        )
        assert (report.tcb_date_ms, report.launch.parts[0].superseded_ms) == (None, None)

    def test_what_is_short_is_measured_against_the_nearest_level_that_is_up_to_date(self) -> None:
        info = tcb_info(level(9), level(7), level(5, status="OutOfDate", date=OLD))
        assert [one.needs for one in judge(info, 5).launch.shortfalls] == [7]

    def test_or_else_against_the_first(self) -> None:
        info = tcb_info(level(9, status="SWHardeningNeeded"), level(5, status="OutOfDate", date=OLD))
        assert [one.needs for one in judge(info, 5).launch.shortfalls] == [9]

    def test_components_are_called_what_the_vendor_calls_them(self) -> None:
        names = ("Early Microcode Update", None, *(None,) * 14)
        info = tcb_info(level(5, 5), level(4, 4, status="OutOfDate", date=OLD), sgx_component_names=names)
        assert [one.component for one in judge(info, 4, 4).launch.shortfalls] == [
            "Early Microcode Update (SGX component 1)",
            "SGX component 2",
        ]

    def test_advisories_are_a_union_without_repetition(self) -> None:
        info = tcb_info(level(advisories=("INTEL-SA-9", "INTEL-SA-1", "INTEL-SA-9")))
        report = judge(info, qe_identity=identity(svn_level(1, "UpToDate", NEW, "INTEL-SA-5", "INTEL-SA-1")))
        assert report.advisory_ids == ("INTEL-SA-1", "INTEL-SA-5", "INTEL-SA-9")


SVNS = st.lists(st.integers(0, 3), min_size=3, max_size=3)


@given(
    levels=st.lists(st.tuples(SVNS, st.integers(0, 3), SVNS, st.sampled_from(PLATFORM)), min_size=1, max_size=5),
    svns=SVNS,
    pce_svn=st.integers(0, 3),
    td=SVNS,
)
def test_matching_is_the_definition(levels: list[Any], svns: list[int], pce_svn: int, td: list[int]) -> None:
    """Against the definition: every component of the level, from the start, is reached."""
    built = [level(*sgx, pce_svn=pce, tdx=tuple(tdx), status=status) for sgx, pce, tdx, status in levels]
    identities = tuple(module(f"TDX_{version:02X}", svn_level(0)) for version in range(1, 4))
    info = tcb_info(*built, tee="tdx", tdx_module_identities=identities)
    start = 2 if td[1] else 0
    reached = [
        one
        for one in built
        if all(padded(*svns)[i] >= one.sgx_svns[i] for i in range(16))
        and pce_svn >= one.pce_svn
        and all(padded(*td)[i] >= (one.tdx_svns or ())[i] for i in range(start, 16))
    ]
    if not reached:
        with pytest.raises(TcbNotSupported):
            judge(info, *svns, pce_svn=pce_svn, td=tuple(td))
        return
    report = judge(info, *svns, pce_svn=pce_svn, td=tuple(td))
    assert report.status is reached[0].status
    for one in report.launch.shortfalls:
        assert one.has < one.needs
