"""Headless Chromium without a network: opens a page from disk, says what its console said, and takes pictures."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
    # The network is off: no name has an address, and nothing answers at the proxy.
    "--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=http://127.0.0.1:9",
)  # fmt: skip
DARK = ("--blink-settings=preferredColorScheme=0",)
TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Opened:
    """A page as it was shown. `pixels`: height x width x 3; `console`: what stood on the console."""

    pixels: npt.NDArray[np.uint8]
    console: list[str]

    def count(self, colour: str) -> int:
        """Pixels of exactly this colour, #rrggbb."""
        wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        return int((self.pixels == wanted).all(axis=2).sum())


def _run(program: str, *arguments: str) -> list[str]:
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [program, *FLAGS, f"--user-data-dir={profile}", *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
            timeout=TIMEOUT_S,
        )
    lines = re.findall(r"CONSOLE[(:].*", done.stderr)
    return [one for one in lines if "source: chrome://" not in one]  # the browser's own windows are not the page


def open_page(program: str, page: Path, picture: Path, *flags: str, width: int = 1100, height: int = 3000) -> Opened:
    """Open a page from disk and take a picture of it."""
    console = _run(program, *flags, f"--window-size={width},{height}", f"--screenshot={picture}", page.as_uri())
    with Image.open(picture) as image:
        return Opened(np.asarray(image.convert("RGB")), console)


def print_page(program: str, page: Path, target: Path) -> list[str]:
    """Print a page into a PDF file; returns what stood on the console."""
    return _run(program, "--no-pdf-header-footer", f"--print-to-pdf={target}", page.as_uri())
