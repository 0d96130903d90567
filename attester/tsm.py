"""CPU quotes from Linux, kernel 6.7 and later: configfs-tsm reports of Intel TDX and AMD SEV-SNP guests.

A request is an entry, a directory below /sys/kernel/config/tsm/report. Facts (Documentation/ABI/testing/
configfs-tsm-report, drivers/virt/coco, fs/configfs/file.c of the kernel), and what follows from them here:

- The kernel takes `inblob` when its file is closed, and nobody learns whether it did. Every write advances
  `generation`: it must have advanced by as many as we made, before the report is read and after it.
- Reading `outblob` has the report made. If others write meanwhile, its length and its bytes may be of two reports.
  So each attempt has an entry of its own, with a random name; the counter shows who writes there all the same.
- One guest makes one report at a time. EBUSY, EINTR and ETIMEDOUT pass; an empty report is a quoting service that did
  not answer; ENXIO is a driver that is not there (yet). These are tried again, on a new entry. A read may take 30 s
  (TDX) or 60 s (SNP): the caller's thread waits that long.
- `auxblob` of SNP is the certificate table that the hypervisor offers: empty at some, malformed at others.

An entry is always removed. One whose process was killed stays until somebody removes it: its name has the process id,
and a directory of another process is never touched here, because that process may be in another PID namespace.

Left out: the older ioctls of /dev/tdx_guest (a report for the machine's own use; its quote needs Intel's own protocol
over vsock) and of /dev/sev-guest, for kernels before 6.7; and SVSM's services (`service_provider`, `manifestblob`),
whose manifests nobody here verifies.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from attester.tsm_entries import ConfigfsEntries, ReportEntries
from attester.tsm_errors import (
    ABSENT,
    PASSING,
    TsmBusy,
    TsmNoDriver,
    TsmOutputInvalid,
    TsmUnavailable,
    TsmUnsupported,
    error_name,
    refusal,
)
from schemas.records import EvidenceItem
from verifier.abi.quote import parse_quote
from verifier.errors import VerificationError
from verifier.evidence import DCAP_KINDS, SNP_CERTIFICATES, SNP_REPORT
from verifier.formats.snp_evidence import parse_snp_evidence, read_endorsements

log = logging.getLogger(__name__)

TDX_GUEST, SEV_GUEST = "tdx_guest", "sev_guest"

ATTEMPTS = 6
"""Reports asked for before a quote fails."""

MAX_WAIT_S = 4.0
"""Longest pause between two attempts; the first is at most 0.25 s, and each limit is twice the one before."""

MAX_REPORT_BYTES = 32 * 1024
"""Bytes of `outblob` and of `auxblob`: what a verifier reads of either, and the bound kernels began with."""

REPORT_DATA_BYTES = 64
_TEXT_BYTES = 4096
_REMOVALS = 3
_TDX_KINDS = {version: kind for kind, (tee, version) in DCAP_KINDS.items() if tee == "tdx"}


class TsmQuotes:
    """A `QuoteProvider` for the guest this process runs in.

    `provider` is what the kernel calls the interface's driver. `certificates` (any form of `snp_certificates`) are sent
    with SNP reports where the hypervisor offers none that can be read. `sleep` (s) waits between attempts. Making one
    asks the kernel who it is, so that an agent without a TEE does not start. Raises TsmUnavailable, TsmUnsupported,
    TsmBusy, TsmRefused.
    """

    def __init__(
        self,
        entries: ReportEntries | None = None,
        *,
        certificates: bytes = b"",
        attempts: int = ATTEMPTS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._entries = ConfigfsEntries() if entries is None else entries
        self._certificates = certificates
        self._retrying = Retrying(
            retry=retry_if_exception_type((TsmBusy, TsmNoDriver)),
            stop=stop_after_attempt(attempts),
            wait=wait_random_exponential(multiplier=0.25, max=MAX_WAIT_S),
            sleep=sleep,
            before_sleep=_say,
            reraise=True,
        )
        self.provider = self._retrying(self._provider)
        if self.provider not in (TDX_GUEST, SEV_GUEST):
            raise TsmUnsupported(f"provider {self.provider[:40]!r}", field="provider")
        self._kind = SNP_REPORT if self.provider == SEV_GUEST else _TDX_KINDS[4]

    @property
    def kind(self) -> str:
        """Kind of its newest quote; before the first of TDX the one that Intel's service makes by default."""
        return self._kind

    @property
    def simulated(self) -> bool:
        """Always False."""
        return False

    def quote(self, report_data: bytes) -> list[EvidenceItem]:
        """A quote over `report_data` (64 bytes), for SNP with the certificates there are.

        What comes back is a quote and names `report_data`; its signature is the verifier's business. Raises TsmBusy,
        TsmUnavailable, TsmRefused, TsmOutputInvalid.
        """
        if len(report_data) != REPORT_DATA_BYTES:
            raise ValueError("report data has 64 bytes")
        report, table = self._retrying(self._report, report_data)
        items = _tdx_items(report, report_data) if self.provider == TDX_GUEST else _snp_items(report, report_data)
        self._kind = items[0].kind
        certificates = _readable(table) or self._certificates
        if self.provider == SEV_GUEST and certificates:
            items.append(EvidenceItem(kind=SNP_CERTIFICATES, data=certificates, subject_absent_reason="cpu"))
        return items

    def _provider(self) -> str:
        with self._entry() as name:
            return self._text(name, "provider")

    def _report(self, report_data: bytes) -> tuple[bytes, bytes]:
        """`outblob` and `auxblob` of one attempt."""
        with self._entry() as name:
            written = self._number(name, "generation")
            floor = self._number(name, "privlevel_floor", absent=0)
            if floor:  # the default is 0, which firmware refuses to a guest at a higher VMPL
                self._write(name, "privlevel", str(floor).encode())
                written += 1
            self._write(name, "inblob", report_data)
            written += 1
            self._check_generation(name, written)
            report = self._read(name, "outblob")
            if not report:
                raise TsmBusy("the report is empty: the quoting service did not answer", field="outblob")
            table = self._read(name, "auxblob", absent=b"") if self.provider == SEV_GUEST else b""
            self._check_generation(name, written)
            return report, table

    def _check_generation(self, name: str, expected: int) -> None:
        found = self._number(name, "generation")
        if found != expected:
            raise TsmBusy(f"generation {found}, expected {expected}: another writer, or a lost write", field="inblob")

    @contextmanager
    def _entry(self) -> Iterator[str]:
        """The name of a new entry, removed at the end, however it ends."""
        name = f"enclavescale-{os.getpid()}-{secrets.token_hex(8)}"
        try:
            self._entries.create(name)
        except OSError as error:
            if error.errno in ABSENT:
                raise TsmUnavailable("there is no report interface", field="directory") from error
            raise refusal(error, "mkdir") from error
        try:
            yield name
        finally:
            self._remove(name)

    def _remove(self, name: str) -> None:
        for _ in range(_REMOVALS):
            try:
                self._entries.remove(name)
            except OSError as error:
                failed = error
                if error.errno in PASSING:
                    continue
            else:
                return
            break
        # The report is good all the same; what stays costs the kernel some kilobytes.
        log.warning("report entry %s is not removed: %s", name, error_name(failed))

    def _read(self, name: str, attribute: str, *, limit: int = MAX_REPORT_BYTES, absent: bytes | None = None) -> bytes:
        try:
            data = self._entries.read(name, attribute, limit)
        except OSError as error:
            if error.errno in ABSENT and absent is not None:  # attributes that a provider lacks are not shown
                return absent
            raise refusal(error, attribute) from error
        if len(data) > limit:
            raise TsmOutputInvalid(f"more than {limit} bytes", field=attribute)
        return data

    def _write(self, name: str, attribute: str, data: bytes) -> None:
        try:
            self._entries.write(name, attribute, data)
        except OSError as error:
            raise refusal(error, attribute) from error

    def _text(self, name: str, attribute: str, *, absent: bytes | None = None) -> str:
        return self._read(name, attribute, limit=_TEXT_BYTES, absent=absent).decode("ascii", "replace").strip()

    def _number(self, name: str, attribute: str, *, absent: int | None = None) -> int:
        text = self._text(name, attribute, absent=None if absent is None else str(absent).encode())
        if not (text.isascii() and text.isdecimal()):
            raise TsmOutputInvalid(f"{text[:40]!r} is no number", field=attribute)
        return int(text)


def _say(state: RetryCallState) -> None:
    log.info("attempt %d for a report: %s", state.attempt_number, state.outcome and state.outcome.exception())


def _tdx_items(report: bytes, report_data: bytes) -> list[EvidenceItem]:
    try:
        quote = parse_quote(report)
    except VerificationError as error:
        raise TsmOutputInvalid(f"no TDX quote: {error}", field="outblob") from error
    if quote.tee != "tdx" or quote.header.version not in _TDX_KINDS:
        raise TsmOutputInvalid(f"a quote of {quote.tee} in version {quote.header.version}", field="outblob")
    _check_asked(quote.body.report_data, report_data)
    return [EvidenceItem(kind=_TDX_KINDS[quote.header.version], data=report, subject_absent_reason="cpu")]


def _snp_items(report: bytes, report_data: bytes) -> list[EvidenceItem]:
    try:
        found = parse_snp_evidence(report)
    except VerificationError as error:
        raise TsmOutputInvalid(f"no SNP report: {error}", field="outblob") from error
    _check_asked(found.report.report_data, report_data)
    return [EvidenceItem(kind=SNP_REPORT, data=report, subject_absent_reason="cpu")]


def _check_asked(found: bytes, asked: bytes) -> None:
    if found != asked:
        raise TsmOutputInvalid("the report is over other report data than was asked for", field="outblob")


def _readable(table: bytes) -> bytes:
    """The hypervisor's certificates if a verifier can read them, else none: it may have them from elsewhere."""
    try:
        certificates, _ = read_endorsements(table) if any(table) else ((), ())
    except VerificationError as error:
        log.warning("the hypervisor's certificates are left out: %s", error.code)
        return b""
    return table if certificates else b""
