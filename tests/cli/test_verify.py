"""`enclavescale verify`: evidence in every form, options, exit codes, what JSON and the screen say."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from enclavescale.evidence_input import MAX_INPUT_BYTES, decode_evidence, read_evidence
from enclavescale.settings import MAX_FILE_BYTES
from enclavescale.verdict_screen import verdict_screen
from tests.cli.conftest import call, process
from tests.verifier.corpus import Case, quotes
from verifier.errors import EvidenceTooLarge, QuoteMalformed, VerificationError
from verifier.limits import MAX_QUOTE_BYTES
from verifier.verdicts.quote import STAGES

CASES = {case.name: case for case in quotes()}
TDX = CASES["tdx_v4-dcapqvl-f1c85033-e17"]
SGX = CASES["sgx_v3-dcapqvl-f8b81014-e17"]
DEBUG = CASES["sgx_v3-trustee-77bcbdfa-e15"]
EXPIRED = CASES["tdx_v4-dcapqvl-f1c85033-e17+expired"]
RELAUNCH = CASES["synth-tdx5-t3-relaunch-conf"]
FORGED = CASES["synth-tdx4-uptodate"]
WORSE_NOW = CASES["synth-tdx5-t3-current-worse"]
BEHIND = CASES["synth-tdx4-module-outofdate"]


def path(case: Case, what: str = "quote") -> Path:
    found = case.path(what)
    assert found is not None
    return found


def arguments(case: Case, *options: str, evidence: str | None = None) -> list[str]:
    found = ["verify", evidence or str(path(case)), "--at", str(case.at)]
    for what, option in (("collateral", "--collateral"), ("trust_root", "--trust-root"), ("pck_cert", "--endorsement")):
        if case.path(what) is not None:
            found += [option, str(path(case, what))]
    return [*found, *options]


def verdict(case: Case, *options: str, exit_code: int, stdin: bytes | None = None, evidence: str | None = None) -> Any:
    done = call(*arguments(case, "--json", *options, evidence=evidence), stdin=stdin)
    assert done.exit_code == exit_code, done.output
    return json.loads(done.stdout)


QUOTE = path(TDX).read_bytes()
HEX = QUOTE.hex().encode()
FORMS = {
    "raw": QUOTE,
    "padded": QUOTE + bytes(3_000),
    "hex": HEX,
    "upper-case hex": HEX.upper(),
    "hex with 0x": b"0x" + HEX,
    "hex in lines": b"\n".join(HEX[i : i + 64] for i in range(0, len(HEX), 64)) + b"\r\n",
    "hex in pairs": b" ".join(HEX[i : i + 2] for i in range(0, len(HEX), 2)),
    "base64": base64.b64encode(QUOTE),
    "base64 in lines": base64.encodebytes(QUOTE),
    "base64 for URLs, unpadded": base64.urlsafe_b64encode(QUOTE).rstrip(b"="),
    "hex with a byte order mark": b"\xef\xbb\xbf" + HEX,
    "hex with 0x behind a byte order mark": b"\xef\xbb\xbf0X" + HEX + b"\n",
    "hex that ends like a string in C": HEX + b"\x00",
    "base64 in a buffer": base64.b64encode(QUOTE) + bytes(100),
    "a JSON string": json.dumps(QUOTE.hex()).encode(),
}


class TestEvidence:
    @pytest.mark.parametrize("form", FORMS)
    def test_every_form_is_the_same_quote(self, form: str) -> None:
        said = verdict(TDX, exit_code=0, evidence="-", stdin=FORMS[form])
        assert said["tcb_status"] == "UpToDate"
        assert decode_evidence(FORMS[form]).rstrip(b"\x00") == QUOTE.rstrip(b"\x00")

    @pytest.mark.parametrize("data", [b"", b" \n", b"\x00", b"\xef\xbb\xbf", b"not a quote", b"zz", b"---BEGIN"])
    def test_text_that_is_no_quote(self, data: bytes) -> None:
        said = verdict(TDX, exit_code=3, evidence="-", stdin=data)
        assert said["codes"] == ["QUOTE_MALFORMED"]
        assert said["verified"] == []

    def test_a_file_is_read_no_further_than_a_quote_can_reach(self) -> None:
        class Endless(io.RawIOBase):
            asked = 0

            def read(self, size: int = -1) -> bytes:
                assert size > 0
                self.asked += size
                return b"\x00" * size

        endless = Endless()
        with pytest.raises(EvidenceTooLarge):
            read_evidence(endless)
        assert endless.asked <= MAX_INPUT_BYTES + 1
        longest = bytes(MAX_QUOTE_BYTES).hex(" ").encode()
        assert len(longest) <= MAX_INPUT_BYTES
        assert read_evidence(io.BytesIO(longest)) == bytes(MAX_QUOTE_BYTES)
        with pytest.raises(QuoteMalformed):
            decode_evidence(b"abc%")

    @given(st.binary(max_size=64) | st.text(max_size=64).map(str.encode))
    def test_any_bytes_are_a_quote_or_refused(self, data: bytes) -> None:
        try:
            decode_evidence(data)
        except VerificationError as error:
            assert error.field == "evidence"  # noqa: PT017

    def test_a_sparse_file_of_gigabytes_is_refused_at_once(self, tmp_path: Path) -> None:
        huge = tmp_path / "huge"
        with huge.open("wb") as file:
            file.truncate(10 * 1024**3)
        assert verdict(TDX, exit_code=3, evidence=str(huge))["codes"] == ["EVIDENCE_TOO_LARGE"]

    def test_kind_is_a_demand(self) -> None:
        assert verdict(TDX, "--kind", "tdx", exit_code=0)["claims"]["tee"] == "tdx"
        assert verdict(SGX, "--kind", "sgx", "--policy", "authentic", exit_code=0)["claims"]["tee"] == "sgx"
        for case, kind in ((TDX, "sgx"), (SGX, "tdx")):
            said = verdict(case, "--kind", kind, exit_code=3)
            assert said["codes"] == ["TEE_TYPE_UNSUPPORTED"]
            assert said["claims"] is None


class TestOutcomes:
    def test_accepted(self) -> None:
        said = verdict(TDX, exit_code=0)
        assert (said["status"], said["accepted"], said["codes"], said["errors"]) == ("affirming", True, [], [])
        assert said["verified"] == list(STAGES)
        assert said["submods"]["cpu"]["ear.status"] == "affirming"
        assert said["submods"]["cpu"]["ear.appraisal-policy-id"] == said["policy"]["digest"]
        assert said["claims"]["report_data"] == TDX.entry.get("report_data", said["claims"]["report_data"])
        assert said["collateral"]["earliest_expiry"] == min(one["next_update"] for one in said["collateral"]["windows"])
        assert said["tcb"]["launch"] == said["tcb"]["current"]

    def test_accepted_with_reservations(self) -> None:
        said = verdict(DEBUG, "--policy", "authentic", exit_code=0)
        assert (said["status"], said["tcb_status"], said["claims"]["debug"]) == ("warning", "OutOfDate", True)
        assert len([one for one in said["warnings"] if "DEBUG" in one or "OutOfDate" in one]) == 2

    def test_refused_by_policy_keeps_the_claims(self) -> None:
        said = verdict(DEBUG, exit_code=3)
        assert said["codes"] == ["DEBUG_ENABLED", "TCB_STATUS_REFUSED"], "every rule that fails is named"
        assert (said["status"], said["tcb_status"]) == ("contraindicated", "OutOfDate")
        assert said["claims"]["mrenclave"]
        assert said["tcb"]["launch"]["shortfalls"]
        assert said["submods"]["cpu"]["ear.trustworthiness-vector"]["runtime-opaque"] == 96
        assert [error["code"] for error in said["errors"]] == said["codes"]

    def test_refused_by_verification_proves_nothing_and_says_how_far_it_came(self) -> None:
        said = verdict(EXPIRED, "--policy", "authentic", exit_code=3)
        assert said["codes"] == ["COLLATERAL_EXPIRED"]
        assert [said[name] for name in ("claims", "tcb", "tcb_status", "advisory_ids", "collateral")] == [None] * 5
        assert said["verified"] == ["format", "pck_chain", "signatures"]

    def test_without_collateral_the_quotes_own_signatures_still_count(self) -> None:
        done = call("verify", str(path(TDX)), "--at", str(TDX.at), "--json")
        said = json.loads(done.stdout)
        assert (done.exit_code, said["codes"]) == (3, ["COLLATERAL_MISSING"])
        assert said["verified"] == ["format", "pck_chain", "signatures"]

    def test_launch_and_current_tcb_stand_apart(self) -> None:
        said = verdict(RELAUNCH, "--policy", "authentic", exit_code=0)
        assert said["tcb_status"] == "TDRelaunchAdvisedConfigurationNeeded"
        assert (said["tcb"]["launch"]["status"], said["tcb"]["current"]["status"]) == (
            "OutOfDateConfigurationNeeded",
            "ConfigurationNeeded",
        )

    def test_as_a_process_and_with_a_warning_for_a_foreign_root(self) -> None:
        done = process(*arguments(RELAUNCH, "--policy", "authentic", "--json"))
        assert done.returncode == 0
        assert len(done.stdout.splitlines()) == 1
        assert done.stderr.startswith("WARNING: ")
        assert any("--trust-root" in one for one in json.loads(done.stdout)["warnings"])

    def test_a_root_that_somebody_names_is_never_affirming(self) -> None:
        said = verdict(FORGED, exit_code=0)
        assert (said["status"], said["tcb_status"]) == ("warning", "UpToDate")
        assert said["tcb"]["current"]["status"] == "UpToDate"

    def test_a_current_tcb_that_is_worse_is_a_reservation(self) -> None:
        said = verdict(WORSE_NOW, exit_code=0)
        assert (said["status"], said["tcb_status"]) == ("warning", "UpToDate")


@pytest.fixture(scope="module")
def report_data() -> str:
    found: str = verdict(TDX, exit_code=0)["claims"]["report_data"]
    return found


class TestReportData:
    def test_all_64_bytes_are_compared(self, report_data: str) -> None:
        said = verdict(TDX, "--report-data", report_data, exit_code=0)
        assert not any("report data" in one for one in said["warnings"])
        verdict(TDX, "--report-data", "0x" + report_data.upper(), exit_code=0)
        other = f"{int(report_data, 16) ^ 1:0128x}"
        assert verdict(TDX, "--report-data", other, exit_code=3)["codes"] == ["REPORT_DATA_MISMATCH"]

    def test_fewer_are_padded_with_zeros_and_are_no_prefix(self, report_data: str) -> None:
        significant = report_data.rstrip("0")
        significant += "0" * (len(significant) % 2)
        verdict(TDX, "--report-data", significant, exit_code=0)
        assert verdict(TDX, "--report-data", significant[:-2], exit_code=3)["codes"] == ["REPORT_DATA_MISMATCH"]

    @pytest.mark.parametrize("value", ["", "zz", "0", "00" * 65])
    def test_what_is_no_report_data(self, value: str) -> None:
        done = call(*arguments(TDX, "--report-data", value))
        assert done.exit_code == 2
        assert "report data" in done.stderr

    def test_a_nonce_is_not_for_intel_quotes(self) -> None:
        done = call(*arguments(TDX, "--nonce", "00" * 32))
        assert done.exit_code == 2
        assert "--report-data" in done.stderr

    @pytest.mark.parametrize("nonce", ["00", "zz", "00" * 33])
    def test_a_nonce_has_32_bytes(self, nonce: str) -> None:
        done = call(*arguments(TDX, "--nonce", nonce))
        assert done.exit_code == 2
        assert "--nonce" in done.stderr


class TestPolicyFile:
    TABLE = """
        unsafe_any_report_data = true
        platforms = ["{ppid}"]
        [tcb]
        accepted_statuses = ["UpToDate"]
        [[measurements]]
        tee = "tdx"
        mrtd = "{mrtd}"
    """

    @pytest.fixture
    def table(self) -> str:
        claims = verdict(TDX, exit_code=0)["claims"]
        return self.TABLE.format(ppid=claims["ppid"], mrtd=claims["mrtd"])

    def test_toml(self, table: str, tmp_path: Path) -> None:
        file = tmp_path / "ours.toml"
        file.write_text(table)
        said = verdict(TDX, "--policy", str(file), exit_code=0)
        assert said["policy"]["name"] == "ours.toml"
        assert any("unsafe_any_report_data" in one for one in said["warnings"])
        file.write_text(table.replace("unsafe_any_report_data = true", ""))
        assert verdict(TDX, "--policy", str(file), exit_code=3)["codes"] == ["POLICY_EMPTY"]

    def test_json(self, tmp_path: Path) -> None:
        file = tmp_path / "ours.json"
        demands = {"tcb": {"accepted_statuses": ["OutOfDate"], "allowed_advisories": ["*"]}}
        opened = {"unsafe_any_report_data": True, "unsafe_any_platform": True, "unsafe_any_measurement": True}
        file.write_text(json.dumps(demands | opened))
        assert verdict(BEHIND, "--policy", str(file), exit_code=0)["status"] == "warning"
        assert verdict(TDX, "--policy", str(file), exit_code=3)["codes"] == ["TCB_STATUS_REFUSED"]

    def test_grace_ends_on_its_day(self, tmp_path: Path) -> None:
        module = verdict(BEHIND, "--policy", "authentic", exit_code=0)["tcb"]["launch"]["parts"][1]
        assert (module["part"], module["status"]) == ("tdx_module", "OutOfDate")
        file = tmp_path / "grace.json"
        opened = {"unsafe_any_report_data": True, "unsafe_any_platform": True, "unsafe_any_measurement": True}
        for days, exit_code in ((module["days_behind"], 3), (module["days_behind"] + 1, 0)):
            tcb = {"accepted_statuses": ["UpToDate"], "grace_days": days}
            file.write_text(json.dumps({"tcb": tcb, **opened}))
            said = verdict(BEHIND, "--policy", str(file), exit_code=exit_code)
            assert said["tcb_status"] == "OutOfDate"
            assert said["status"] == ("contraindicated" if exit_code else "warning")

    @pytest.mark.parametrize("name", ["huge.toml", "huge.json"])
    def test_a_sparse_file_of_gigabytes_is_refused_at_once(self, name: str, tmp_path: Path) -> None:
        file = tmp_path / name
        with file.open("wb") as huge:
            huge.truncate(10 * 1024**3)
        done = call(*arguments(TDX, "--policy", str(file)))
        assert (done.exit_code, done.stdout) == (2, "")
        assert f"more than {MAX_FILE_BYTES} bytes" in " ".join(done.stderr.replace("│", "").split())

    @pytest.mark.parametrize(("name", "text"), [("deep.json", "[" * 200_000), ("deep.toml", "a = " + "[" * 200_000)])
    def test_a_file_too_deep_to_read_is_refused(self, name: str, text: str, tmp_path: Path) -> None:
        file = tmp_path / name
        file.write_text(text)
        assert call(*arguments(TDX, "--policy", str(file))).exit_code == 2

    def test_a_list_of_a_whole_fleet_is_read(self, tmp_path: Path) -> None:
        file = tmp_path / "fleet.json"
        file.write_text(json.dumps({"platforms": [f"{number:032x}" for number in range(100_000)]}))
        assert set(verdict(TDX, "--policy", str(file), exit_code=3)["codes"]) == {
            "POLICY_EMPTY",
            "PLATFORM_NOT_ENROLLED",
        }

    def test_no_device_is_a_policy(self) -> None:
        assert call(*arguments(TDX, "--policy", "/dev/zero")).exit_code == 2

    def test_an_empty_file_refuses(self, tmp_path: Path) -> None:
        file = tmp_path / "empty.toml"
        file.write_text("")
        assert set(verdict(TDX, "--policy", str(file), exit_code=3)["codes"]) == {"POLICY_EMPTY"}

    @pytest.mark.parametrize(
        ("text", "named"), [("[tcb]\ngrace = 1", "tcb.grace"), ("tees = 7", "tees"), ("= =", "bad.toml")]
    )
    def test_a_file_that_cannot_be_meant(self, text: str, named: str, tmp_path: Path) -> None:
        file = tmp_path / "bad.toml"
        file.write_text(text)
        done = call(*arguments(TDX, "--policy", str(file)))
        assert done.exit_code == 2
        assert named in done.stderr.replace("\n", "")

    def test_template_is_printed_and_can_be_filled_in(self, tmp_path: Path) -> None:
        done = call("verify", "--policy-template")
        assert done.exit_code == 0
        assert "accepted_statuses" in done.stdout
        file = tmp_path / "fleet.toml"
        file.write_text(done.stdout)
        assert set(verdict(TDX, "--policy", str(file), exit_code=3)["codes"]) == {"POLICY_EMPTY"}
        claims = verdict(TDX, exit_code=0)["claims"]
        filled = done.stdout.replace("platforms = []", f'platforms = ["{claims["ppid"]}"]')
        file.write_text(filled + f'\n[[measurements]]\ntee = "tdx"\nmrtd = "{claims["mrtd"]}"\n')
        said = verdict(TDX, "--policy", str(file), "--report-data", claims["report_data"], exit_code=0)
        assert (said["status"], said["warnings"]) == ("affirming", [])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--policy", "lenient"], "neither strict nor authentic nor a file"),
        (["--kind", "amd"], "amd"),
        (["--at", "yesterday"], "RFC 3339"),
        (["--at", "2026-01-01T00:00:00"], "zone"),
        (["--at", "0001-01-01T00:00:00+14:00"], "out of range"),
        (["--at", "9999-12-31T23:59:59-14:00"], "out of range"),
        (["--collateral", "no-such-file"], "no-such-file"),
        (["--trust-root", "README.md"], "README.md"),
    ],
)
def test_exit_2_for_what_the_user_must_correct(options: list[str], said: str) -> None:
    done = call("verify", str(path(TDX)), *options)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0", "99999999999"])
def test_the_ends_of_the_calendar_are_times_like_others(at: str) -> None:
    done = call("verify", str(path(TDX)), "--collateral", str(path(TDX, "collateral")), "--at", at, "--json")
    assert done.exit_code == 3
    assert json.loads(done.stdout)["codes"]


def test_missing_evidence_is_a_usage_error() -> None:
    for wrong in ([], ["no-such-file"], [str(path(TDX).parent)]):
        assert call("verify", *wrong).exit_code == 2


def test_an_endorsement_that_is_none_is_refused(tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_bytes(b"\x00 junk")
    said = verdict(TDX, "--endorsement", str(junk), exit_code=3)
    assert said["codes"][0].startswith(("COLLATERAL_", "CERT_"))


SCREENS = {
    "accepted": (TDX, ()),
    "with reservations": (DEBUG, ("--policy", "authentic")),
    "by policy": (DEBUG, ()),
    "by verification": (EXPIRED, ()),
    "relaunch": (RELAUNCH, ("--policy", "authentic")),
    "sgx": (SGX, ()),
}


class TestScreen:
    @pytest.mark.parametrize("width", [60, 80, 120])
    @pytest.mark.parametrize("name", SCREENS)
    def test_it_fits_and_cuts_nothing(self, name: str, width: int) -> None:
        case, options = SCREENS[name]
        said = json.loads(call(*arguments(case, "--json", *options)).stdout)
        console = Console(width=width, record=True, file=io.StringIO(), highlight=False)
        console.print(verdict_screen(said, width))
        text = console.export_text()
        assert max(len(line) for line in text.splitlines()) <= width
        assert "…" not in text
        squeezed = re.sub(r"\s", "", text)
        for error in said["errors"]:
            for part in error.values():
                assert re.sub(r"\s", "", part) in squeezed
        for register in ("mrtd", "mrenclave", "mrsigner", "report_data", "ppid"):
            value = (said["claims"] or {}).get(register, "0")
            assert not value.strip("0") or value in squeezed

    def test_the_verdict_comes_first(self) -> None:
        for case, options, word in ((TDX, (), "ACCEPTED"), (DEBUG, (), "REFUSED")):
            done = call(*arguments(case, *options))
            assert word in done.stdout.splitlines()[0]
        assert "with reservations" in call(*arguments(DEBUG, "--policy", "authentic")).stdout.splitlines()[0]

    def test_what_is_short_stands_there_with_what_it_has_and_needs(self) -> None:
        said = json.loads(call(*arguments(DEBUG, "--json")).stdout)
        text = call(*arguments(DEBUG)).stdout
        for one in said["tcb"]["launch"]["shortfalls"]:
            assert re.search(rf"{re.escape(one['component'])}\s+{one['has']}\s+{one['needs']}", text)
        assert f"{said['tcb']['days_behind']} days behind" in text

    def test_how_far_a_failed_verification_came(self) -> None:
        text = call(*arguments(EXPIRED)).stdout
        assert re.search(r"signatures\s+✔", text)
        assert re.search(r"collateral\s+✘", text)
        assert re.search(r"validity\s+·", text)

    def test_away_from_a_terminal_there_are_no_colours(self) -> None:
        assert "\x1b" not in process(*arguments(TDX)).stdout

    def test_a_terminal_that_knows_only_ascii(self) -> None:
        done = process(*arguments(EXPIRED), PYTHONIOENCODING="ascii")
        assert (done.returncode, done.stderr) == (3, "")
        assert done.stdout.startswith("x REFUSED")
        assert process("verify", "--policy-template", PYTHONIOENCODING="ascii").returncode == 0
