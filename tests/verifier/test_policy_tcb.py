"""Rules on the TCB: accepted statuses, grace and when it ends, advisories, evaluation sets."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.records import Policy, TcbRule
from tests.forge.world import policy as record
from tests.verifier.quote_claims import DAY, NOW, UP_TO_DATE, part, report, state, td
from verifier.errors import (
    AdvisoryRefused,
    PolicyEmpty,
    TcbEvaluationTooOld,
    TcbRevoked,
    TcbStatusRefused,
    TcbUnevaluated,
    VerificationError,
)
from verifier.policy import accepted_until_ms, certain_between
from verifier.policy.default import TcbAccepted, tcb_requirements
from verifier.policy.tcb import TcbRequirement, grace_ends_ms
from verifier.tcb.evaluate import converge, relaunch
from verifier.tcb.status import TcbReport, TcbState, TcbStatus

UP = ("UpToDate",)
WEEK_AGO = NOW - 7 * DAY


def demand(accepted: tuple[str, ...] | None = UP, **changes: object) -> TcbRequirement:
    return TcbRequirement(accepted_statuses=accepted, **changes)  # type: ignore[arg-type]


def behind(
    *advisories: str, superseded: int | None = WEEK_AGO, status: str = "OutOfDate", reported: str | None = None
) -> TcbReport:
    """A platform that was superseded a week ago."""
    return report(
        state(status, part("platform", status, *advisories, superseded=superseded), part("qe", "UpToDate")),
        status=reported,
    )


def judge(tcb: TcbReport | None, requirement: TcbRequirement, now_ms: int = NOW) -> None:
    requirement.rules().check(td(now_ms, tcb=tcb))


@pytest.mark.parametrize(("status", "accepted"), list(product(TcbStatus, TcbStatus)))
def test_only_the_statuses_named_are_accepted(status: TcbStatus, accepted: TcbStatus) -> None:
    if status is accepted and status is not TcbStatus.REVOKED:
        judge(behind(status=status), demand((accepted,)))
    else:
        with pytest.raises(TcbRevoked if status is TcbStatus.REVOKED else TcbStatusRefused) as caught:
            judge(behind(status=status), demand((accepted,)))
        assert caught.value.field == "tcb_status"


@pytest.mark.parametrize("status", TcbStatus)
def test_where_the_status_is_not_judged_only_revoked_is_refused(status: TcbStatus) -> None:
    if status is TcbStatus.REVOKED:
        with pytest.raises(TcbRevoked):
            judge(behind(status=status), demand(None))
    else:
        judge(behind(status=status), demand(None))


def test_no_status_accepted_is_an_empty_policy() -> None:
    with pytest.raises(PolicyEmpty):
        judge(UP_TO_DATE, demand(()))


def test_what_was_not_evaluated_satisfies_nothing() -> None:
    for requirement in (demand(), demand(None)):
        with pytest.raises(TcbUnevaluated):
            judge(None, requirement)


class TestGrace:
    MONTH = demand(grace_days=30, allowed_advisories=())

    def test_it_lasts_from_the_day_the_part_was_superseded(self) -> None:
        end = WEEK_AGO + 30 * DAY
        judge(behind(), self.MONTH)
        judge(behind(), self.MONTH, end - 1)
        with pytest.raises(TcbStatusRefused, match="grace ended 1972-10-20"):
            judge(behind(), self.MONTH, end)

    def test_none_by_default(self) -> None:
        with pytest.raises(TcbStatusRefused):
            judge(behind(), demand())

    def test_the_first_part_decides(self) -> None:
        parts = (
            part("platform", "OutOfDate", superseded=WEEK_AGO),
            part("tdx_module", "OutOfDate", superseded=NOW - 40 * DAY),
            part("qe", "UpToDate"),
        )
        with pytest.raises(TcbStatusRefused):
            judge(report(state("OutOfDate", *parts)), self.MONTH)

    def test_a_part_that_nobody_can_date_has_none(self) -> None:
        with pytest.raises(TcbStatusRefused):
            judge(behind(superseded=None), self.MONTH)
        parts = (part("platform", "OutOfDate", superseded=WEEK_AGO), part("qe", "OutOfDate"))
        with pytest.raises(TcbStatusRefused):
            judge(report(state("OutOfDate", *parts)), self.MONTH)

    @pytest.mark.parametrize("status", ["SWHardeningNeeded", "ConfigurationNeeded"])
    def test_it_forgives_no_other_status(self, status: str) -> None:
        with pytest.raises(TcbStatusRefused):
            judge(behind(status=status), self.MONTH)

    def test_it_never_forgives_a_revoked_part(self) -> None:
        with pytest.raises(TcbRevoked):
            judge(behind(status="Revoked"), self.MONTH)

    def test_it_forgives_no_configuration(self) -> None:
        tcb = behind(status="OutOfDateConfigurationNeeded")
        with pytest.raises(TcbStatusRefused):
            judge(tcb, self.MONTH)
        for accepted in ("ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded"):
            judge(tcb, demand((*UP, accepted), grace_days=30))

    @pytest.mark.parametrize(
        ("status", "accepted", "refused"),
        [
            ("SWHardeningNeeded", UP, True),
            ("SWHardeningNeeded", (*UP, "SWHardeningNeeded"), False),
            ("ConfigurationNeeded", UP, True),
            ("ConfigurationNeeded", (*UP, "ConfigurationNeeded"), False),
            ("ConfigurationAndSWHardeningNeeded", (*UP, "ConfigurationNeeded"), True),
            ("ConfigurationAndSWHardeningNeeded", (*UP, "ConfigurationAndSWHardeningNeeded"), False),
            ("OutOfDateConfigurationNeeded", UP, True),
            ("OutOfDateConfigurationNeeded", (*UP, "ConfigurationNeeded"), False),
        ],
    )
    def test_a_part_that_is_not_behind_is_judged_as_it_is_alone(
        self, status: str, accepted: tuple[str, ...], refused: bool
    ) -> None:
        parts = (part("platform", status, superseded=WEEK_AGO), part("qe", "OutOfDate", superseded=WEEK_AGO))
        tcb = report(state(converge(TcbStatus(status), [TcbStatus.OUT_OF_DATE]), *parts))
        requirement = demand(accepted, grace_days=30)
        if refused:
            assert grace_ends_ms(tcb, requirement) == ()
            with pytest.raises(TcbStatusRefused):
                judge(tcb, requirement)
        else:
            judge(tcb, requirement)

    def test_an_updated_module_is_no_worse_than_an_old_one(self) -> None:
        now = state("UpToDate")
        launched = behind().launch
        judge(report(launched, now, status="TDRelaunchAdvised"), replace(self.MONTH, judge_current=True))
        with pytest.raises(TcbStatusRefused):
            judge(report(launched, now, status="TDRelaunchAdvisedConfigurationNeeded"), self.MONTH)

    def test_the_message_says_which_part_and_since_when(self) -> None:
        with pytest.raises(TcbStatusRefused, match="platform OutOfDate since 1972-09-20"):
            judge(behind(), demand())

    def test_absurd_numbers_of_days_stay_an_answer(self) -> None:
        judge(behind(), demand(grace_days=10**15))
        with pytest.raises(TcbStatusRefused, match="later than can be said"):
            judge(behind(), demand(grace_days=10**15), 10**30)


class TestAdvisories:
    def test_every_one_must_be_allowed(self) -> None:
        tcb = behind("INTEL-SA-1", "INTEL-SA-2", status="SWHardeningNeeded")
        accepted = ("SWHardeningNeeded",)
        judge(tcb, demand(accepted, allowed_advisories=("INTEL-SA-2", "INTEL-SA-1", "INTEL-SA-3")))
        with pytest.raises(AdvisoryRefused, match="INTEL-SA-2") as caught:
            judge(tcb, demand(accepted, allowed_advisories=("INTEL-SA-1",)))
        assert "INTEL-SA-1," not in str(caught.value)

    def test_a_star_allows_all_and_none_means_not_judged(self) -> None:
        tcb = behind("INTEL-SA-1", status="SWHardeningNeeded")
        for allowed in (("*",), None):
            judge(tcb, demand(("SWHardeningNeeded",), allowed_advisories=allowed))

    def test_those_of_parts_that_are_up_to_date_are_reported_only(self) -> None:
        judge(behind("INTEL-SA-1", status="UpToDate"), demand(allowed_advisories=()))

    def test_grace_forgives_those_of_the_part_that_is_behind_and_no_others(self) -> None:
        month = demand((*UP, "SWHardeningNeeded"), grace_days=30, allowed_advisories=())
        judge(behind("INTEL-SA-1"), month)
        parts = (
            part("platform", "SWHardeningNeeded", "INTEL-SA-9"),
            part("tdx_module", "OutOfDate", "INTEL-SA-1", superseded=WEEK_AGO),
        )
        with pytest.raises(AdvisoryRefused, match="INTEL-SA-9"):
            judge(report(state("OutOfDate", *parts)), month)

    def test_an_accepted_status_that_is_behind_keeps_its_advisories_after_grace(self) -> None:
        late = demand(("OutOfDate",), grace_days=3, allowed_advisories=())
        with pytest.raises(AdvisoryRefused):
            judge(behind("INTEL-SA-1"), late)


class TestEvaluation:
    @pytest.mark.parametrize(("number", "qe_number", "field"), [(16, 17, "tcb_info"), (17, 16, "qe_identity")])
    def test_both_documents_must_be_of_the_set_or_a_later_one(self, number: int, qe_number: int, field: str) -> None:
        tcb = report(state("UpToDate"), number=number, qe_number=qe_number)
        judge(tcb, demand(min_evaluation_number=16))
        with pytest.raises(TcbEvaluationTooOld) as caught:
            judge(tcb, demand(min_evaluation_number=17))
        assert caught.value.field == field


class TestCurrent:
    WORSE = report(state("UpToDate"), behind("INTEL-SA-1").launch)
    REVOKED = report(state("UpToDate"), state("Revoked"))

    def test_it_is_judged_where_the_policy_says_so(self) -> None:
        judge(self.WORSE, demand())
        with pytest.raises(TcbStatusRefused) as caught:
            judge(self.WORSE, demand(judge_current=True))
        assert caught.value.field == "tcb.current.status"

    @pytest.mark.parametrize("accepted", [None, UP])
    @pytest.mark.parametrize("judge_current", [False, True])
    def test_a_revoked_one_is_refused_by_every_policy(
        self, accepted: tuple[str, ...] | None, judge_current: bool
    ) -> None:
        with pytest.raises(TcbRevoked) as caught:
            judge(self.REVOKED, demand(accepted, judge_current=judge_current, grace_days=30))
        assert caught.value.field == "tcb.current.status"

    def test_it_has_grace_of_its_own(self) -> None:
        judge(self.WORSE, demand(judge_current=True, grace_days=8))
        with pytest.raises(TcbStatusRefused):
            judge(self.WORSE, demand(judge_current=True, grace_days=7))

    def test_its_advisories_count(self) -> None:
        accepted = (*UP, "OutOfDate")
        with pytest.raises(AdvisoryRefused):
            judge(self.WORSE, demand(accepted, judge_current=True, allowed_advisories=()))
        judge(self.WORSE, demand(accepted, allowed_advisories=()))


STATUSES = st.sampled_from([one.value for one in TcbStatus if not one.startswith("TDRelaunch")])
PARTS = st.lists(
    st.tuples(STATUSES, st.sampled_from([None, WEEK_AGO, NOW - 40 * DAY, NOW]), st.sampled_from([(), ("A",), ("B",)])),
    min_size=1,
    max_size=3,
)


def outcome(tcb: TcbReport, requirement: TcbRequirement, now_ms: int) -> str | None:
    try:
        judge(tcb, requirement, now_ms)
    except VerificationError as error:
        return f"{error.code} {error.field}"
    return None


@given(
    launch=PARTS,
    current=PARTS,
    accepted=st.lists(STATUSES, min_size=1, max_size=3),
    allowed=st.sampled_from([None, (), ("A",)]),
    days=st.integers(0, 50),
    judge_current=st.booleans(),
    times=st.lists(st.integers(NOW - 60 * DAY, NOW + 60 * DAY), min_size=2, max_size=2).map(sorted),
)
def test_answers_change_only_where_grace_ends(
    launch: list[tuple[str, int | None, tuple[str, ...]]],
    current: list[tuple[str, int | None, tuple[str, ...]]],
    accepted: list[str],
    allowed: tuple[str, ...] | None,
    days: int,
    judge_current: bool,
    times: list[int],
) -> None:
    states = [
        state(
            parts[0][0], *(part(str(i), status, *ids, superseded=when) for i, (status, when, ids) in enumerate(parts))
        )
        for parts in (launch, current)
    ]
    tcb = report(*states)
    requirement = demand(tuple(accepted), grace_days=days, allowed_advisories=allowed, judge_current=judge_current)
    ends = grace_ends_ms(tcb, requirement)
    first, last = times
    if not any(first < end <= last for end in ends):
        assert outcome(tcb, requirement, first) == outcome(tcb, requirement, last)
    for end in ends:
        assert outcome(tcb, requirement, end) is not None, "what grace forgave is refused from its end on"


Token = tuple[str, int | None]
"""A part's status, and since when it is behind."""

UP_TO_DATE_PART: Token = ("UpToDate", None)
HARDEN, CONFIGURE, BOTH = (
    (status, None) for status in ("SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded")
)
LATER, EARLIER, UNDATED = (("OutOfDate", since) for since in (WEEK_AGO, NOW - 40 * DAY, None))
LATER_CONFIGURE, EARLIER_CONFIGURE, UNDATED_CONFIGURE = (
    ("OutOfDateConfigurationNeeded", since) for since in (WEEK_AGO, NOW - 40 * DAY, None)
)
REVOKED: Token = ("Revoked", None)

WORSE_PLATFORMS: dict[Token, tuple[Token, ...]] = {
    UP_TO_DATE_PART: (HARDEN, CONFIGURE, LATER),
    HARDEN: (BOTH,),
    CONFIGURE: (BOTH, LATER_CONFIGURE),
    BOTH: (REVOKED,),
    LATER: (EARLIER, LATER_CONFIGURE),
    EARLIER: (UNDATED, EARLIER_CONFIGURE),
    UNDATED: (UNDATED_CONFIGURE,),
    LATER_CONFIGURE: (EARLIER_CONFIGURE,),
    EARLIER_CONFIGURE: (UNDATED_CONFIGURE,),
    UNDATED_CONFIGURE: (REVOKED,),
    REVOKED: (),
}
"""What is worse by one step, each lacking something more. Being behind is one lack, which grace forgives; code to be
hardened is another: neither is worse."""

WORSE_ENCLAVES: dict[Token, tuple[Token, ...]] = {
    UP_TO_DATE_PART: (LATER,), LATER: (EARLIER,), EARLIER: (UNDATED,), UNDATED: (REVOKED,), REVOKED: (),
}  # fmt: skip

RELAUNCH = ("TDRelaunchAdvised",)
SENSIBLE = (
    UP,
    (*UP, HARDEN[0]),
    (*UP, CONFIGURE[0]),
    (*UP, HARDEN[0], CONFIGURE[0]),
    (*UP, HARDEN[0], CONFIGURE[0], BOTH[0]),
    (*UP, HARDEN[0], *RELAUNCH),
    (*UP, HARDEN[0], *RELAUNCH, LATER[0]),
    (*UP, HARDEN[0], *RELAUNCH, LATER[0], CONFIGURE[0], BOTH[0]),
    tuple(one.value for one in TcbStatus if one is not TcbStatus.REVOKED),
)
"""Accepted statuses, with each all that are better: no platform can be too good."""


def converged(platform: Token, *enclaves: Token) -> TcbState:
    made = [part(str(index), status, superseded=since) for index, (status, since) in enumerate((platform, *enclaves))]
    return state(converge(made[0].status, [one.status for one in made[1:]]), *made)


@pytest.mark.parametrize("judge_current", [False, True])
@pytest.mark.parametrize("days", [0, 30])
@pytest.mark.parametrize("accepted", SENSIBLE)
def test_no_part_that_gets_worse_makes_a_refusal_an_acceptance(
    accepted: tuple[str, ...], days: int, judge_current: bool
) -> None:
    """Every TD there can be (platform, quoting enclave, module at launch, module now), against each one step worse."""
    requirement = demand(accepted, grace_days=days, judge_current=judge_current)
    orders = (WORSE_PLATFORMS, WORSE_ENCLAVES, WORSE_ENCLAVES, WORSE_ENCLAVES)
    passes = {}
    for td_ in product(*orders):
        platform, qe, launched, running = td_
        launch, current = converged(platform, launched, qe), converged(platform, running, qe)
        tcb = report(launch, current, status=relaunch(launch.status, current.status))
        passes[td_] = outcome(tcb, requirement, NOW) is None
    assert any(passes.values())
    for td_, passed in passes.items():
        for index, order in enumerate(orders):
            for worse in order[td_[index]]:
                other = (*td_[:index], worse, *td_[index + 1 :])
                assert passed or not passes[other], f"{td_} is refused, and accepted as {other}"


class TestSessionPolicy:
    RULE = TcbRule(tee="tdx", accepted_statuses=UP, grace_days=30, allowed_advisories=(), min_tcb_evaluation_number=17)

    def policy(self, *rules: TcbRule) -> Policy:
        return record(b"", tcb_rules=rules)

    def judge(self, tcb: TcbReport | None, *rules: TcbRule, now_ms: int = NOW) -> None:
        TcbAccepted(tcb_requirements(self.policy(*rules), "tdx")).check(td(now_ms, tcb=tcb))

    def test_an_evaluated_tcb_needs_a_rule_for_its_tee(self) -> None:
        for rules in ((), (replace(self.RULE, tee="sgx"),)):
            with pytest.raises(PolicyEmpty) as caught:
                self.judge(UP_TO_DATE, *rules)
            assert caught.value.field == "tcb_rules"
        self.judge(UP_TO_DATE, self.RULE)

    def test_every_rule_for_the_tee_must_hold(self) -> None:
        strict = replace(self.RULE, grace_days=0)
        self.judge(behind(), self.RULE)
        with pytest.raises(TcbStatusRefused):
            self.judge(behind(), self.RULE, strict)

    def test_the_current_tcb_is_judged(self) -> None:
        with pytest.raises(TcbStatusRefused):
            self.judge(TestCurrent.WORSE, replace(self.RULE, grace_days=0))

    def test_what_was_not_evaluated_is_left_to_the_rule_on_that(self) -> None:
        self.judge(None)

    def test_until_when_grace_carries_an_acceptance(self) -> None:
        end = WEEK_AGO + 30 * DAY
        quote = td(tcb=behind()).quote
        assert accepted_until_ms(quote, self.policy(self.RULE)) == end - 1
        assert accepted_until_ms(td().quote, self.policy(self.RULE)) is None
        assert accepted_until_ms(td(tcb=None).quote, self.policy(self.RULE)) is None
        assert accepted_until_ms(quote, self.policy()) is None

    def test_a_verdict_is_certain_on_one_side_of_that_day(self) -> None:
        quote = replace(td(tcb=behind()).quote, valid_from_ms=0, expires_ms=NOW * 2)
        end = WEEK_AGO + 30 * DAY
        assert certain_between(quote, self.policy(self.RULE), end - 1) == (0, end - 1)
        assert certain_between(quote, self.policy(self.RULE), end) == (end, NOW * 2)
        assert certain_between(td().quote, self.policy(self.RULE), NOW) == (NOW - 10 * DAY, NOW + 20 * DAY)
