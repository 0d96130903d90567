"""The page in a browser, from disk, with the network off: plots are drawn, the console stays empty, it prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from enclavescale.report import write_page
from tests.house.source import ROOT
from tests.report.chromium import DARK, open_page, print_page
from tests.report.samples import facts_of, findings_of, verdicts_of
from tests.results import write_result
from tests.tools import need_tool

pytestmark = [pytest.mark.accept, pytest.mark.timeout(600)]

CSS = (ROOT / "enclavescale" / "report" / "templates" / "report.css").read_text()


@pytest.fixture(scope="module")
def program() -> str:
    return need_tool("chromium")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("page"), facts_of(verdicts_of(400), findings_of()))


def colour(name: str, scheme: int) -> str:
    """A colour of the style sheet: of the light scheme (0) or the dark (1)."""
    return re.findall(rf"--{name}:(#[0-9a-f]{{6}})", CSS)[scheme]


def test_it_shows_its_plots_and_the_console_stays_empty(program: str, page: Path, tmp_path: Path) -> None:
    sizes = {"light": (1100, 9000), "dark": (1100, 9000), "phone": (390, 9000)}
    counted = {}
    for name, (width, height) in sizes.items():
        dark = name == "dark"
        shown = open_page(program, page, tmp_path / f"{name}.png", *(DARK if dark else ()), width=width, height=height)
        assert shown.console == []
        inks = ("power", "limit", "v-identical", "v-differs", "v-extra", "c0", "c1")
        counted[name] = {ink: shown.count(colour(ink, dark)) for ink in inks}
        assert min(counted[name].values()) > 40, name
        background = "#12161d" if dark else "#ffffff"
        assert shown.count(background) > 0.3 * shown.pixels.shape[0] * shown.pixels.shape[1]
    write_result("report-chromium", {"console_lines": 0, "pixels": counted}, seeds={})


def test_a_fault_would_show_on_the_console(program: str, page: Path, tmp_path: Path) -> None:
    for number, fault in enumerate(
        ('<p style="color:red">x</p>', "<script>1</script>", '<img src="https://a.example/x">')
    ):
        broken = tmp_path / f"{number}.html"
        broken.write_text(page.read_text().replace("</main>", f"{fault}</main>"))
        console = open_page(program, broken, tmp_path / "broken.png", height=400).console
        assert "Content Security Policy" in "".join(console), fault


def test_it_prints(program: str, page: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.pdf"
    assert print_page(program, page, target) == []
    data = target.read_bytes()
    assert data.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", data)) >= 4
    boxes = [one.split() for one in re.findall(rb"/MediaBox\s*\[([^]]*)\]", data)]
    assert all(abs(float(box[2]) - 595) < 2 and abs(float(box[3]) - 842) < 2 for box in boxes), "A4"


def test_it_fits_a_telephone(program: str, page: Path, tmp_path: Path) -> None:
    """The page itself does not scroll sideways, only tables in their frames; asked of a copy that may run a script."""
    question = "<script>console.log(`${document.documentElement.scrollWidth} of ${innerWidth}`)</script></body>"
    asking = tmp_path / "asking.html"
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    asking.write_text(text.replace("</body>", question))
    (line,) = open_page(program, asking, tmp_path / "asking.png", width=390, height=800).console
    found = re.search(r'"(\d+) of (\d+)"', line)
    assert found
    assert int(found[1]) <= int(found[2]) <= 500
