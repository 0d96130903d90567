"""`enclavescale collateral`: what is held to judge quotes with."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from enclavescale.cli.common import EXIT_CODES, EXIT_REFUSED, errors, json_option, say
from enclavescale.cli.evidence import at_option, trust_root_option
from enclavescale.collateral_screen import collateral_screen
from enclavescale.judging.inputs import NamedRoot
from verifier.inventory import take_inventory, to_json
from verifier.trust.load import load_collateral
from verifier.trust.roots import INTEL_SGX_ROOT
from verifier.trust.vendors import BUILT_IN_ROOTS, ROOTS_BY_USE
from verifier.vendor_inventory import VendorJudge


@click.group(epilog=EXIT_CODES)
def collateral() -> None:
    """Look into the collateral that quotes are judged with."""


@collateral.command(epilog=EXIT_CODES)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@at_option
@trust_root_option
@json_option
def show(paths: Sequence[Path], now_ms: int, trust_roots: Sequence[NamedRoot], as_json: bool) -> None:
    """Say what PATHs hold, when each item ends, and what is missing for a platform.

    Files and directories: answers of a PCCS, with or without their headers, QuoteCollateralV3, RIMs, OCSP responses,
    certificates and CRLs of every vendor, told by their content. Nothing is fetched. Exit 0 if everything in them is
    genuine and current, 3 if not.
    """
    with errors(as_json):
        held = load_collateral(paths)
        intel = [one.anchor for one in trust_roots if one.use in (None, "intel") and one.anchor.is_p256]
        rims = [one.anchor for one in trust_roots if one.use in (None, "rim")]
        vendors = [one.anchor for one in trust_roots if one.use != "intel"]
        others = [one for one in BUILT_IN_ROOTS if one != INTEL_SGX_ROOT]
        judge = VendorJudge(held, [*others, *vendors], [*ROOTS_BY_USE["rim"], *rims], now_ms)
        inventory = take_inventory(held, [INTEL_SGX_ROOT, *intel], now_ms, judge)
        found = to_json(inventory)
        if as_json:
            say(found)
        else:
            console = Console(highlight=False)
            console.print(collateral_screen(found, console.width))
        sys.exit(0 if inventory.ok else EXIT_REFUSED)
