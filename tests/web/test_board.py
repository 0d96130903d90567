"""The state behind the page, from outputs that were never made: what is kept, what is wrong, what is worst."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import pytest

from schemas.records import Interval
from schemas.records.output import Forecast, SetAside
from stream_jobs.web import board as boards
from stream_jobs.web.board import Board
from stream_jobs.web.card import POINT_FIELDS, Card
from stream_jobs.web.judging import Standing
from stream_jobs.web.problems import power, span
from stream_jobs.web.refusals import MAX_CODES, OTHER, RECENT, SPAN_MS, Refusal, refusal_of
from tests.web.samples import NOW, T0, W, around, judged, output, session


def a_board(*, keep: int = 360, checked: bool = True) -> Board:
    board = Board(keep=keep, explain=lambda code: f"what {code} means", checked=checked, started_ms=NOW)
    board.contact(NOW)
    board.partition(0, 0)
    board.met(rejections=True)
    return board


def put(board: Board, made: Any, offset: int = 0, *, at_ms: int = NOW, **about: Any) -> None:
    board.take(judged(made, **about), made.source.partition, offset, at_ms)


def a_refusal(code: str, offset: int = 0, at_ms: int = NOW) -> Refusal:
    return Refusal(
        code=code, topic="reports", partition=0, offset=offset, letter_partition=0, letter_offset=offset, at_ms=at_ms
    )


def codes(board: Board, now_ms: int = NOW) -> list[str]:
    return [one["code"] for one in board.status(now_ms)["problems"]]


def policy(counter: int = 1, *, ends_ms: int = NOW + 30 * 86_400_000, domains: tuple[str, ...] = ()) -> Any:
    rules = tuple(SimpleNamespace(domain=one, partition=0) for one in domains)
    inside = SimpleNamespace(
        counter=counter,
        effective_from_ms=0,
        not_after_ms=ends_ms,
        domains=rules,
        unsafe_allow_unevaluated_tcb=False,
        unsafe_allow_unenrolled_platform=True,
        unsafe_allow_create_time=False,
    )
    return SimpleNamespace(policy=inside, digest=bytes(32), domains=dict.fromkeys(domains), hosts={})


def test_all_fine_says_so_with_the_smallest_margin() -> None:
    board = a_board()
    put(board, output("hall-a", margin_w=400_000))
    put(board, output("hall-b", margin_w=150_000), 1)
    status = board.status(NOW)
    assert (status["level"], status["headline"]) == ("fine", "All fine: 2 domains, smallest margin 150.00 kW.")
    assert status["problems"] == []


def test_figures_are_those_of_the_record() -> None:
    board, made = a_board(), output()
    put(board, made, 7)
    (domain,) = board.snapshot(NOW)["domains"]
    assert (domain["partition"], domain["offset"], domain["trust"]) == (0, 7, "verified")
    assert domain["output"]["mean"] == dataclasses.asdict(made.mean)
    assert domain["output"]["margin"]["margin"] == dataclasses.asdict(made.margin.margin)
    (point,) = domain["points"]
    assert dict(zip(POINT_FIELDS, point, strict=True))["margin_w"] == 400_000
    json.dumps(domain)


@pytest.mark.parametrize(
    ("changes", "level", "code"),
    [
        ({"margin_w": -1}, "trouble", "OVER_LIMIT"),
        ({"margin_w": 10_000}, "watch", "MARGIN_UNSURE"),
        ({"margin_w": None}, "trouble", "MARGIN_WITHHELD"),
        ({"hosts": 15}, "watch", "HOSTS_MISSING"),
        ({"hosts": 3, "margin_w": None}, "trouble", "NO_QUORUM"),
        ({"forecasts": (Forecast(horizon_ms=1_000, quantile_ppm=990_000, estimate=around(2_100_000)),)}, "watch",
         "FORECAST_OVER"),
        ({"source": dataclasses.replace(output().source, gap_ranges=1, gap_records=4)}, "trouble", "INPUT_GAP"),
        ({"set_aside": (SetAside(model="m", sampler_mode="instant", code="HISTORY_UP", hosts=2, gpus=1, capacity_w=1,
          readings_taken=1, pane_sums_sum=b"", claimed_w=1, reference_w=1, weight_ppm=1),)}, "watch", "SET_ASIDE"),
        ({"window": 60}, "watch", "LATE_FIGURES"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_domain(changes: dict[str, Any], level: str, code: str) -> None:
    board = a_board()
    put(board, output(**changes))
    status = board.status(NOW)
    (problem,) = status["problems"]
    assert (status["level"], problem["code"], problem["domain"]) == (level, code, "hall-a")
    assert problem["text"].startswith("hall-a")
    assert problem["todo"]


def test_a_forecast_over_the_limit_is_not_told_beside_a_margin_that_says_it() -> None:
    board = a_board()
    over = (Forecast(horizon_ms=1_000, quantile_ppm=990_000, estimate=around(2_100_000)),)
    put(board, output(margin_w=10_000, forecasts=over))
    assert codes(board) == ["MARGIN_UNSURE"]


def test_a_domain_falls_silent_after_three_windows() -> None:
    board = a_board()
    put(board, output())
    assert codes(board, NOW + 3 * W) == ["STALE"]  # nobody was asked meanwhile, either
    board.contact(NOW + 3 * W)
    assert codes(board, NOW + 3 * W) == []
    board.contact(NOW + 3 * W + 1_000)
    assert codes(board, NOW + 3 * W + 1_000) == ["SILENT"]


def test_the_worst_comes_first_and_old_figures_are_the_worst() -> None:
    board = a_board()
    put(board, output("hall-b", hosts=15))
    put(board, output("hall-a", margin_w=-1), 1)
    board.take(judged(output("hall-x"), code="SIGNATURE_INVALID"), 0, 2, NOW)
    board.refusal(a_refusal("EQUIVOCATION"))
    assert codes(board) == ["OVER_LIMIT", "UNVERIFIED", "EQUIVOCATION", "HOSTS_MISSING"]
    assert codes(board, NOW + 20_000)[0] == "STALE"


def test_an_output_that_does_not_verify_is_told_and_never_shown() -> None:
    board = a_board()
    put(board, output(margin_w=400_000))
    board.take(judged(output(window=91, margin_w=-1), code="SIGNATURE_INVALID"), 0, 1, NOW)
    snapshot = board.snapshot(NOW)
    (domain,) = snapshot["domains"]
    assert domain["output"]["margin"]["margin"]["value_w"] == 400_000
    assert len(domain["points"]) == 1
    (place,) = snapshot["unverified"]
    assert (place["partition"], place["offset"], place["code"]) == (0, 1, "SIGNATURE_INVALID")
    assert snapshot["headline"].startswith("1 output does not verify (SIGNATURE_INVALID)")


def test_an_output_copied_to_another_partition_is_not_shown() -> None:
    board = a_board()
    board.take(judged(output(partition=1)), 0, 5, NOW)
    snapshot = board.snapshot(NOW)
    assert (snapshot["domains"], [one["code"] for one in snapshot["unverified"]]) == ([], ["WRONG_PARTITION"])


def test_nothing_is_verified_without_a_signer_and_the_state_says_so() -> None:
    board = a_board(checked=False)
    put(board, output(), checked=False)
    snapshot = board.snapshot(NOW)
    assert (snapshot["checked"], snapshot["domains"][0]["trust"], snapshot["aggregators"]) == (False, "unchecked", [])


def test_the_chain_is_followed_and_a_hole_in_it_is_trouble() -> None:
    board = a_board()
    first = output(window=88)
    put(board, first)
    assert board.snapshot(NOW)["domains"][0]["chain"] == "first"
    second = output(window=89, before=judged(first).digest)
    put(board, second, 1)
    assert board.snapshot(NOW)["domains"][0]["chain"] == "linked"
    put(board, output(window=90, before=b"\1" * 32), 2)
    assert codes(board) == ["CHAIN_BROKEN"]


def test_the_same_output_again_changes_nothing_and_another_one_is_a_fork() -> None:
    board, made = a_board(), output()
    put(board, made)
    board.changes(NOW)
    put(board, made, 1)
    assert board.changes(NOW) == []
    put(board, output(margin_w=300_000), 2)
    assert codes(board) == ["FORK"]


def test_a_revision_takes_its_windows_place() -> None:
    board = a_board()
    first = output(hosts=15)
    put(board, first)
    again = output(revision=1, before=judged(first).digest)
    put(board, again, 1)
    (domain,) = board.snapshot(NOW)["domains"]
    assert (domain["output"]["revision"], domain["revised_windows"], len(domain["points"])) == (1, 1, 1)
    assert codes(board) == []


def test_changes_are_the_new_points_only() -> None:
    board = a_board()
    before = None
    for window in (88, 89):
        made = output(window=window, before=before)
        put(board, made, window)
        before = judged(made).digest
    names = [name for name, _ in board.changes(NOW)]
    assert names == ["domain", "status"]
    put(board, output(window=90, before=before), 90)
    (name, facts), *_ = board.changes(NOW, with_status=False)
    assert (name, [one[0] for one in facts["points"]]) == ("domain", [T0 + 90 * W])


def test_history_is_bounded_per_domain_and_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    board = a_board(keep=5)
    for window in range(20):
        put(board, output(window=window, refused={"LATE": 1}), window)
    (domain,) = board.snapshot(NOW)["domains"]
    assert [one[0] for one in domain["points"]] == [T0 + window * W for window in range(15, 20)]
    assert domain["refused_in_history"] == {"LATE": 5}
    monkeypatch.setattr(boards, "MAX_POINTS", 6)
    for name in ("hall-b", "hall-c"):
        for window in range(5):
            put(board, output(name, window=window), window)
    assert [len(one["points"]) for one in board.snapshot(NOW)["domains"]] == [2, 2, 2]


def test_domains_are_bounded_and_what_is_left_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "MAX_DOMAINS", 3)
    board = a_board(checked=False)
    for number in range(10):
        put(board, output(f"d{number}"), number, checked=False)
    snapshot = board.snapshot(NOW)
    assert (len(snapshot["domains"]), snapshot["domains_left_out"]) == (3, 7)
    assert "DOMAINS_LEFT_OUT" in codes(board)


@pytest.mark.parametrize(
    ("left_ms", "expected"),
    [(10 * 86_400_000, []), (2 * 86_400_000, ["POLICY_ENDS"]), (3_600_000, ["POLICY_ENDS"]), (-1, ["POLICY_ENDED"])],
)
def test_a_policy_that_ends_is_told_before(left_ms: int, expected: list[str]) -> None:
    board = a_board()
    put(board, output())
    board.stands(Standing(checked=True, policy=policy(ends_ms=NOW + left_ms)))
    assert codes(board) == expected
    assert board.status(NOW)["level"] == ("fine" if not expected else "watch" if left_ms > 86_400_000 else "trouble")
    assert board.status(NOW)["unsafe"] == ["unsafe_allow_unenrolled_platform"]


def test_what_else_the_topics_say_is_told() -> None:
    board = a_board()
    put(board, output(collateral_digest=b"\1" * 32), worker=session(expires_ms=NOW + 3_600_000))
    board.stands(
        Standing(
            checked=True, policy=policy(2, domains=("hall-a", "hall-z")), equivocations=1, collateral_ends_ms=NOW - 1
        )
    )
    found = codes(board)
    assert found == [
        "POLICY_EQUIVOCATION", "COLLATERAL_ENDED", "NO_OUTPUT", "EVIDENCE_ENDS", "POLICY_OLD"
    ]  # fmt: skip
    board.stands(Standing(checked=True))
    assert "NO_POLICY" in codes(board)


def test_simulated_power_or_a_simulated_worker_is_told() -> None:
    board = a_board()
    put(board, output())
    assert not board.status(NOW)["simulated"]
    put(board, output(window=91, before=judged(output()).digest), worker=session(simulated=True))
    board.changes(NOW)
    put(board, output("hall-b"), 2, worker=session(simulated=True))
    share = dataclasses.replace(output().power_by[0], simulated=True)
    other = a_board()
    put(other, output(power_by=(share,)))
    assert other.status(NOW)["simulated"]


def test_a_topic_made_anew_is_told() -> None:
    board = a_board()
    put(board, output())
    board.passed(0, 7, NOW)
    board.passed(0, 0, NOW)
    assert codes(board) == ["OUTPUT_REMADE"]


def test_reading_is_caught_up_when_all_that_was_there_is_read() -> None:
    board = Board(keep=5, explain=str, checked=True, started_ms=NOW)
    assert not board.caught_up()
    board.partition(0, 3)
    board.partition(1, 0)
    board.letters(0, 2)
    board.met(rejections=True)
    assert not board.caught_up()
    for offset in range(3):
        board.passed(0, offset, NOW)
    assert not board.caught_up()
    board.refusal(a_refusal("LATE", 1))
    assert board.caught_up()
    assert board.status(NOW)["level"] == "waiting"


def test_refusals_are_counted_by_code_and_leave_after_ten_minutes() -> None:
    board = a_board()
    put(board, output(refused={"MALFORMED": 2}))
    for offset in range(RECENT + 10):
        board.refusal(a_refusal("MALFORMED" if offset % 2 else "DUPLICATE", offset))
    refused = board.status(NOW)["refused"]
    assert {one["code"]: (one["recent"], one["counted"]) for one in refused["codes"]} == {
        "MALFORMED": (30, 2), "DUPLICATE": (30, 0),
    }  # fmt: skip
    assert refused["codes"][0]["meaning"] == "what MALFORMED means"
    assert [one["offset"] for one in refused["newest"]] == list(reversed(range(10, RECENT + 10)))
    assert codes(board) == ["REFUSALS"]
    later = NOW + SPAN_MS + 20_000
    board.contact(later)
    assert "REFUSALS" not in codes(board, later)


def test_duplicates_alone_are_no_problem() -> None:
    board = a_board()
    put(board, output())
    board.refusal(a_refusal("DUPLICATE"))
    assert codes(board) == []


def test_invented_codes_are_bounded() -> None:
    board = a_board()
    for number in range(1_000):
        board.refusal(a_refusal(f"CODE_{number}", number))
    found = board.status(NOW)["refused"]["codes"]
    assert len(found) <= MAX_CODES + 1
    assert sum(one["recent"] for one in found) == 1_000


class Letter:
    """A dead letter as the client library gives it; its value must not be asked for."""

    def __init__(self, headers: Any, stamp: int = NOW):
        self._headers, self._stamp = headers, stamp

    def headers(self) -> Any:
        return self._headers

    def timestamp(self) -> tuple[int, int]:
        return 2, self._stamp

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return 9


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("enclavescale.error.code", b"LATE"), ("__connect.errors.topic", b"t"), ("__connect.errors.partition", b"1"),
          ("__connect.errors.offset", b"77")], ("LATE", "t", 1, 77)),
        (None, (OTHER, "", None, None)),
        ([("enclavescale.error.code", b"<b>"), ("__connect.errors.offset", b"-1")], (OTHER, "", None, None)),
        ([("enclavescale.error.code", b"\xff"), ("__connect.errors.partition", b"9" * 40)], (OTHER, "", None, None)),
        ([("enclavescale.error.code", None), ("__connect.errors.topic", b"\xff")], (OTHER, "\ufffd", None, None)),
    ],
)  # fmt: skip
def test_whatever_a_dead_letter_says_it_is_a_refusal(headers: Any, expected: tuple[Any, ...]) -> None:
    one = refusal_of(Letter(headers, NOW + 1), NOW)  # type: ignore[arg-type]
    assert (one.code, one.topic, one.partition, one.offset) == expected
    assert (one.letter_partition, one.letter_offset, one.at_ms) == (3, 9, NOW)


def test_words_for_power_and_time() -> None:
    assert [power(one) for one in (0, -1_500, 999_999, 1_234_567)] == ["0.00 kW", "−1.50 kW", "1000.00 kW", "1.23 MW"]
    assert [span(one) for one in (-5, 119_000, 120_000, 7_260_000, 200_000_000)] == [
        "0 s", "119 s", "2 min", "2 h 1 min", "2 days"
    ]  # fmt: skip


def test_a_card_without_an_output_has_no_figures() -> None:
    assert Card(5).facts("x")["output"] is None
    assert Card(5).chain == "unknown"


def test_an_interval_is_all_that_a_point_has_of_it() -> None:
    board = a_board()
    put(board, output(mean=None, mean_absent_reason="withheld", quantiles=()))
    point = dict(zip(POINT_FIELDS, board.snapshot(NOW)["domains"][0]["points"][0], strict=True))
    assert (point["mean_w"], point["p50_w"], point["p99_low_w"], point["limit_w"]) == (None, None, None, 2_000_000)
    assert isinstance(around(1), Interval)
