"""Quotes through the kernel's report interface: what comes out verifies, and whatever the kernel does is survived."""

from __future__ import annotations

import errno
import logging
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attester.session import Session
from attester.simulated import SimulatedTee
from attester.tsm import ATTEMPTS, MAX_WAIT_S, SEV_GUEST, TsmQuotes
from attester.tsm_entries import ConfigfsEntries
from attester.tsm_errors import (
    TsmBusy,
    TsmOutputInvalid,
    TsmUnavailable,
    TsmUnsupported,
)
from schemas.codec import report_data_of
from schemas.errors import EnclaveScaleError
from tests.attester.fake_tsm import FakeTsm, Fault, another_writes, removed
from tests.forge.composite import world as composite
from tests.forge.dcap import world as dcap
from tests.forge.mint import MRTD, PLATFORM_ID
from tests.forge.snp import reports
from tests.forge.snp import world as snp
from tests.forge.world import NOW_MS, binding, policy
from verifier.session import VerifiedSession, verify_session

DATA = bytes(range(64))
TEE = SimulatedTee.create(platform_id=PLATFORM_ID, mrtd=MRTD)


def tdx(report_data: bytes, _level: int) -> tuple[bytes, bytes]:
    return TEE.mint(report_data), b""


def guest(table: Callable[[bytes], bytes] = lambda table: table) -> Callable[[bytes, int], tuple[bytes, bytes]]:
    """AMD's firmware and a hypervisor that offers certificates."""

    def make(report_data: bytes, level: int) -> tuple[bytes, bytes]:
        world = snp.GENOA.but(fields={"report_data": report_data, "vmpl": level})
        minted = world.mint()
        kinds = ("vcek", "ask", "ark")
        entries = (reports.Entry(kind, der) for kind, der in zip(kinds, minted.certificates, strict=True))
        return minted.report, table(reports.table(*entries))

    return make


def sev(table: Callable[[bytes], bytes] = lambda table: table, **changes: Any) -> FakeTsm:
    return FakeTsm(guest(table), provider=SEV_GUEST, **changes)


class Waits(list[float]):
    """A sleep that takes no time."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def quotes(kernel: FakeTsm, **settings: Any) -> TsmQuotes:
    return TsmQuotes(kernel, sleep=settings.pop("sleep", Waits()), **settings)


def session(provider: TsmQuotes) -> Session:
    return Session(provider, lambda point: binding(session_public_key=point))


def verified(made: Session, **arguments: Any) -> VerifiedSession:
    return verify_session(
        evidence=made.evidence,
        binding_bytes=made.binding_bytes,
        report_data=report_data_of(made.binding_bytes),
        session_id=made.session_id,
        role="host",
        **arguments,
    )


def test_a_tdx_quote_from_the_kernel_verifies() -> None:
    kernel = FakeTsm(lambda data, level: (TEE.mint(data).ljust(8000, b"\x00"), b""))
    made = session(quotes(kernel))
    found = verified(made, policy=policy(TEE.root_der), now_ms=NOW_MS)
    assert (found.claims.quote.tee, found.simulated, made.simulated) == ("tdx", True, False)
    assert [item.kind for item in made.evidence.items] == ["tdx_quote_v4"]
    assert kernel.entries == {}


@pytest.mark.parametrize("certificates", ["the hypervisor's", "configured"])
def test_an_snp_report_from_the_kernel_verifies(certificates: str) -> None:
    host = composite.SNP.but(gpus=(), sensors=())
    minted = composite.mint(host)
    kernel = sev() if certificates == "the hypervisor's" else sev(lambda table: b"")
    configured = b"".join(snp.GENOA.mint().certificates)
    made = session(quotes(kernel, certificates=configured))
    found = verified(
        made,
        policy=composite.policy_of(minted, composite.enrolment(host), host),
        now_ms=composite.NOW * 1000,
        collateral=minted.collateral,
    )
    assert (found.claims.quote.tee, found.simulated) == ("snp", False)
    assert [item.kind for item in made.evidence.items] == ["snp_report", "snp_certificates"]
    assert (made.evidence.items[1].data == configured) == (certificates == "configured")


@pytest.mark.parametrize("world", [dcap.TDX4, dcap.TDX5, dcap.TDX5_15, dcap.TDX5_EXTENDED])
def test_the_kind_is_the_quotes_version(world: dcap.World) -> None:
    kernel = FakeTsm(lambda data, level: (world.but(body={**world.body, "report_data": data}).mint().quote, b""))
    provider = quotes(kernel)
    assert provider.kind == "tdx_quote_v4"
    (item,) = provider.quote(DATA)
    assert item.kind == provider.kind == f"tdx_quote_v{world.version}"
    assert (item.subject, item.subject_absent_reason) == (None, "cpu")


def test_snp_without_certificates_is_the_report_alone() -> None:
    provider = quotes(sev(lambda table: b""))
    assert [item.kind for item in provider.quote(DATA)] == ["snp_report"]
    assert provider.kind == "snp_report"


@pytest.mark.parametrize("table", [b"\x00" * 4096, b"garbage" * 100, b"\x30\x82"])
def test_a_table_nobody_can_read_is_left_out_for_the_configured_certificates(table: bytes) -> None:
    own = b"".join(snp.GENOA.mint().certificates)
    items = quotes(sev(lambda _: table), certificates=own).quote(DATA)
    assert [item.data for item in items[1:]] == [own]
    assert [item.kind for item in quotes(sev(lambda _: table)).quote(DATA)] == ["snp_report"]


@pytest.mark.parametrize("floor", [0, 2])
def test_a_guest_above_vmpl_0_asks_at_its_own_level(floor: int) -> None:
    kernel = sev(floor=floor)
    report = quotes(kernel).quote(DATA)[0].data
    assert int.from_bytes(report[0x30:0x34], "little") == floor
    assert (("write", "privlevel") in kernel.operations) == bool(floor)


def test_every_quote_has_an_entry_of_its_own() -> None:
    kernel = FakeTsm(tdx, faults={("read", "outblob"): [errno.EBUSY]})
    provider = quotes(kernel)
    provider.quote(DATA)
    provider.quote(DATA)
    assert len(set(kernel.made)) == 4, "the provider's name, two attempts and a quote"
    assert all(re.fullmatch(rf"enclavescale-{os.getpid()}-[0-9a-f]{{16}}", name) for name in kernel.made)
    assert kernel.entries == {}


PASSING: dict[str, tuple[tuple[str, str], Fault]] = {
    "the generation is used up": (("write", "inblob"), errno.EBUSY),
    "the VMM still has the last request": (("read", "outblob"), errno.EBUSY),
    "a signal": (("read", "outblob"), errno.EINTR),
    "the quoting service is slow": (("read", "outblob"), errno.ETIMEDOUT),
    "somebody wrote while it was read": (("read", "outblob"), errno.EWOULDBLOCK),
    "the driver went away": (("read", "outblob"), errno.ENXIO),
    "the driver is being loaded": (("create", ""), errno.ENXIO),
    "our entry was removed before it was written": (("write", "inblob"), removed),
    "our entry was removed before it was read": (("read", "outblob"), removed),
    "another writes before us": (("write", "inblob"), another_writes),
    "another writes after us": (("read", "outblob"), another_writes),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_tried_again_on_a_new_entry(name: str) -> None:
    place, fault = PASSING[name]
    kernel, waits = FakeTsm(tdx), Waits()
    provider = quotes(kernel, sleep=waits)
    kernel.faults = {place: [fault]}
    (item,) = provider.quote(DATA)
    assert DATA in item.data
    assert len(waits) == 1
    assert kernel.entries == {}


def test_one_who_writes_between_length_and_bytes_spoils_nothing() -> None:
    """The kernel then gives the bytes of one report in the length of another."""
    longer = iter([0, 1000, 0, 0, 0])
    kernel = FakeTsm(lambda data, level: (TEE.mint(data) + bytes(next(longer)), b""), between=[another_writes])
    (item,) = quotes(kernel).quote(DATA)
    assert DATA in item.data


def test_a_write_that_the_kernel_dropped_is_noticed() -> None:
    kernel = FakeTsm(tdx, lost_writes=1)
    (item,) = quotes(kernel).quote(DATA)
    assert DATA in item.data
    assert kernel.operations.count(("read", "outblob")) == 1, "the attempt ended before the report was made"


def test_an_empty_report_is_a_service_that_did_not_answer() -> None:
    answers = iter([b"", TEE.mint(DATA), TEE.mint(DATA)])
    (item,) = quotes(FakeTsm(lambda data, level: (next(answers), b""))).quote(DATA)
    assert DATA in item.data


@pytest.mark.parametrize(
    ("place", "fault", "error"),
    [
        (("read", "outblob"), errno.EBUSY, TsmBusy),
        (("read", "outblob"), another_writes, TsmBusy),
        (("write", "inblob"), removed, TsmBusy),
        (("create", ""), errno.ENXIO, TsmUnavailable),
    ],
)
def test_attempts_end(place: tuple[str, str], fault: Fault, error: type[EnclaveScaleError]) -> None:
    kernel, waits = FakeTsm(tdx), Waits()
    provider = quotes(kernel, sleep=waits)
    before = len(kernel.made)
    kernel.faults = {place: [fault] * 100}
    with pytest.raises(error):
        provider.quote(DATA)
    assert len(waits) == ATTEMPTS - 1
    assert all(0 <= one <= MAX_WAIT_S for one in waits)
    assert len(kernel.made) - before in (ATTEMPTS, 0)
    assert kernel.entries == {}


@pytest.mark.parametrize(
    ("place", "number", "code"),
    [
        (("create", ""), errno.ENOENT, "TSM_UNAVAILABLE"),
        (("create", ""), errno.EACCES, "TSM_UNAVAILABLE"),
        (("create", ""), errno.EPERM, "TSM_UNAVAILABLE"),
        (("create", ""), errno.ENOMEM, "TSM_REFUSED"),
        (("write", "inblob"), errno.EACCES, "TSM_UNAVAILABLE"),
        (("read", "outblob"), errno.EIO, "TSM_REFUSED"),
        (("read", "outblob"), errno.ENOTTY, "TSM_REFUSED"),
        (("read", "outblob"), errno.EINVAL, "TSM_REFUSED"),
        (("read", "outblob"), errno.EFBIG, "TSM_OUTPUT_INVALID"),
    ],
)
def test_what_does_not_pass_is_not_tried_again(place: tuple[str, str], number: int, code: str) -> None:
    kernel, waits = FakeTsm(tdx), Waits()
    provider = quotes(kernel, sleep=waits)
    kernel.faults = {place: [number]}
    with pytest.raises(EnclaveScaleError) as refused:
        provider.quote(DATA)
    assert refused.value.code == code
    assert errno.errorcode[number] in str(refused.value) or number == errno.ENOENT
    assert refused.value.remedy
    assert (waits, kernel.entries) == ([], {})


def made_for_another(data: bytes) -> bytes:
    return TEE.mint(bytes(64))


OUTPUTS: dict[str, Callable[[bytes], bytes]] = {
    "over other report data": made_for_another,
    "cut short": lambda data: TEE.mint(data)[:-1],
    "something behind it": lambda data: TEE.mint(data) + b"x",
    "an SGX quote": lambda data: dcap.SGX4.but(body={**dcap.SGX4.body, "report_data": data}).mint().quote,
    "a newer format": lambda data: b"\x06\x00" + TEE.mint(data)[2:],
    "no quote at all": lambda data: b"\xd8\x3d\xd2" * 3000,
    "more than anybody reads": lambda data: TEE.mint(data).ljust(32 * 1024 + 1, b"\x00"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_that_is_no_quote_over_our_data_is_refused(name: str) -> None:
    kernel = FakeTsm(lambda data, level: (OUTPUTS[name](data), b""))
    with pytest.raises(TsmOutputInvalid):
        quotes(kernel).quote(DATA)
    assert kernel.entries == {}


def test_an_snp_report_over_other_data_is_refused() -> None:
    kernel = FakeTsm(lambda data, level: guest()(bytes(64), level), provider=SEV_GUEST)
    with pytest.raises(TsmOutputInvalid):
        quotes(kernel).quote(DATA)
    with pytest.raises(TsmOutputInvalid):
        quotes(FakeTsm(lambda data, level: (b"\x09" * 1184, b""), provider=SEV_GUEST)).quote(DATA)


@pytest.mark.parametrize("number", ["", "none", "-1", "٣"])
def test_a_generation_that_is_no_number_is_refused(number: str) -> None:
    class Odd(FakeTsm):
        def read(self, name: str, attribute: str, limit: int) -> bytes:
            return number.encode() if attribute == "generation" else super().read(name, attribute, limit)

    with pytest.raises(TsmOutputInvalid):
        quotes(Odd(tdx)).quote(DATA)


def test_an_attribute_without_end_is_not_read_to_its_end() -> None:
    class Endless(FakeTsm):
        def read(self, name: str, attribute: str, limit: int) -> bytes:
            return b"1" * (limit + 1) if attribute == "generation" else super().read(name, attribute, limit)

    with pytest.raises(TsmOutputInvalid, match="4096"):
        quotes(Endless(tdx)).quote(DATA)


@pytest.mark.parametrize("provider", ["arm_cca_guest", "", "x" * 100])
def test_other_providers_are_refused_at_once(provider: str) -> None:
    kernel = FakeTsm(tdx, provider=provider)
    with pytest.raises(TsmUnsupported):
        quotes(kernel)
    assert kernel.entries == {}


def test_no_driver_is_said_after_it_had_its_time() -> None:
    waits = Waits()
    with pytest.raises(TsmUnavailable):
        quotes(FakeTsm(tdx, provider=None), sleep=waits)
    assert len(waits) == ATTEMPTS - 1


def test_a_machine_without_the_interface_is_told_at_once(tmp_path: Path) -> None:
    waits = Waits()
    with pytest.raises(TsmUnavailable) as refused:
        TsmQuotes(ConfigfsEntries(tmp_path / "absent"), sleep=waits)
    assert "6.7" in refused.value.remedy
    assert waits == []


def test_an_entry_that_stays_is_logged_and_the_quote_is_good(caplog: pytest.LogCaptureFixture) -> None:
    kernel = FakeTsm(tdx)
    provider = quotes(kernel)
    kernel.faults = {("remove", ""): [errno.EBUSY, errno.EINTR]}
    provider.quote(DATA)
    assert kernel.entries == {}, "tried again"
    kernel.faults = {("remove", ""): [errno.EBUSY] * 3}
    with caplog.at_level(logging.WARNING):
        assert len(provider.quote(DATA)) == 1
    assert "EBUSY" in caplog.text
    kernel.faults = {("remove", ""): [errno.EPERM]}
    assert len(provider.quote(DATA)) == 1
    assert len(kernel.entries) == 2


def test_entries_of_others_are_not_touched() -> None:
    kernel = FakeTsm(tdx)
    kernel.create("enclavescale-1-0011223344556677")
    quotes(kernel).quote(DATA)
    assert list(kernel.entries) == ["enclavescale-1-0011223344556677"]


def test_several_threads_get_their_own_quotes() -> None:
    kernel = FakeTsm(tdx)
    provider, found = quotes(kernel), {}

    def ask(number: int) -> None:
        data = bytes([number]) * 64
        found[number] = provider.quote(data)[0].data.count(data) == 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == dict.fromkeys(range(1, 9), True)
    assert kernel.entries == {}


def test_report_data_of_another_length_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="64"):
        quotes(FakeTsm(tdx)).quote(bytes(63))


STEPS = st.sampled_from(
    [("create", ""), ("read", "generation"), ("write", "inblob"), ("read", "outblob"), ("read", "auxblob")]
)
HAPPENS = st.sampled_from(
    [errno.EBUSY, errno.EINTR, errno.ENXIO, errno.EIO, errno.EACCES, errno.ENOENT, another_writes, removed, None]
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(STEPS, st.lists(HAPPENS, max_size=4), max_size=5), st.integers(0, 2))
def test_whatever_happens_a_quote_is_ours_or_an_error_is(faults: dict[tuple[str, str], list[Fault]], lost: int) -> None:
    kernel = sev(lambda table: b"")
    provider = quotes(kernel)
    kernel.faults = {place: list(listed) for place, listed in faults.items()}
    kernel.faults[("create", "")] = [one for one in kernel.faults.get(("create", ""), []) if not callable(one)]
    kernel.lost_writes = lost
    try:
        items = provider.quote(DATA)
    except EnclaveScaleError as error:
        assert error.code.startswith("TSM_")  # noqa: PT017  either outcome is right, each has its own check
    else:
        assert items[0].data[0x50:0x90] == DATA
    assert kernel.entries == {}


def test_files_are_read_in_pieces_and_to_the_limit(tmp_path: Path) -> None:
    """A pipe gives what it has, as a file of the kernel may."""
    entries = ConfigfsEntries(tmp_path)
    entries.create("one")
    pipe = tmp_path / "one" / "outblob"
    os.mkfifo(pipe)
    pieces = [bytes([number]) * 7 for number in range(20)]

    def feed() -> None:
        with pipe.open("wb", buffering=0) as file:
            for piece in pieces:
                file.write(piece)

    writer = threading.Thread(target=feed)
    writer.start()
    assert entries.read("one", "outblob", 1000) == b"".join(pieces)
    writer.join(20)
    pipe.unlink()
    pipe.write_bytes(bytes(5000))
    assert len(entries.read("one", "outblob", 4096)) == 4097
    assert len(entries.read("one", "outblob", 5000)) == 5000


def test_files_are_written_at_once_and_never_made(tmp_path: Path) -> None:
    entries = ConfigfsEntries(tmp_path)
    entries.create("one")
    with pytest.raises(FileNotFoundError):
        entries.write("one", "inblob", DATA)
    with pytest.raises(FileNotFoundError):
        entries.read("one", "auxblob", 10)
    inblob = tmp_path / "one" / "inblob"
    inblob.touch()
    entries.write("one", "inblob", DATA)
    assert inblob.read_bytes() == DATA
    with pytest.raises(FileExistsError):
        entries.create("one")
    inblob.unlink()
    entries.remove("one")
    assert list(tmp_path.iterdir()) == []


def test_a_device_without_room_is_an_error() -> None:
    with pytest.raises(OSError, match="No space") as refused:
        ConfigfsEntries(Path("/dev")).write(".", "full", DATA)
    assert refused.value.errno == errno.ENOSPC
