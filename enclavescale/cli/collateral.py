"""`enclavescale collateral`: what is held to judge quotes with, here and on the topic that workers read."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from enclavescale.cli.common import (
    EXIT_CODES,
    EXIT_REFUSED,
    Cluster,
    FiniteRange,
    cluster_options,
    errors,
    json_option,
    say,
)
from enclavescale.cli.evidence import at_option, trust_root_option
from enclavescale.collateral_screen import collateral_screen
from enclavescale.collateral_status import domains_of, status_lines, topic_status
from enclavescale.collateral_topic import items_of, publish_set, standing_items
from enclavescale.judging.inputs import NamedRoot
from stream_jobs.collateral_store import CollateralStore
from verifier.errors import VerificationError
from verifier.inventory import NOT_YET_VALID, REFUSED, UNREADABLE, VALID, Inventory, take_inventory, to_json
from verifier.trust.load import load_collateral
from verifier.trust.roots import INTEL_SGX_ROOT
from verifier.trust.store import Collateral
from verifier.trust.vendors import BUILT_IN_ROOTS, ROOTS_BY_USE
from verifier.vendor_inventory import VendorJudge

IMPORTED = (VALID, NOT_YET_VALID)
"""States of items that workers are given: what has ended is of no use, what is coming will be."""


class CollateralRefused(VerificationError):
    """What was to be imported is not genuine."""

    code = "COLLATERAL_NOT_GENUINE"
    remedy = "See `enclavescale collateral show PATH...`; leave out what nobody signed, or trust its root."


def _inventory(held: Collateral, trust_roots: Sequence[NamedRoot], now_ms: int) -> Inventory:
    """Every item judged by the vendors' roots and those given."""
    intel = [one.anchor for one in trust_roots if one.use in (None, "intel") and one.anchor.is_p256]
    rims = [one.anchor for one in trust_roots if one.use in (None, "rim")]
    vendors = [one.anchor for one in trust_roots if one.use != "intel"]
    others = [one for one in BUILT_IN_ROOTS if one != INTEL_SGX_ROOT]
    judge = VendorJudge(held, [*others, *vendors], [*ROOTS_BY_USE["rim"], *rims], now_ms)
    return take_inventory(held, [INTEL_SGX_ROOT, *intel], now_ms, judge)


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
        inventory = _inventory(load_collateral(paths), trust_roots, now_ms)
        found = to_json(inventory)
        if as_json:
            say(found)
        else:
            console = Console(highlight=False)
            console.print(collateral_screen(found, console.width))
        sys.exit(0 if inventory.ok else EXIT_REFUSED)


@collateral.command("import", epilog=EXIT_CODES)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@cluster_options
@trust_root_option
@at_option
@click.option("--replace", is_flag=True, help="Keep nothing of the set before, also where it has not ended.")
@json_option
def import_command(
    paths: Sequence[Path],
    cluster: Cluster,
    trust_roots: Sequence[NamedRoot],
    now_ms: int,
    replace: bool,
    as_json: bool,
) -> None:
    """Give workers what PATHs hold: items and a set of them on the collateral topic. Nothing is fetched.

    The set keeps what the newest one on the topic holds and has not ended: reports of earlier windows are judged by
    what was current then. Importing the same again changes nothing but says that it is current. Exit 3, and nothing is
    written, if anything in PATHs is not genuine; or if the set is not the newest afterwards.
    """
    with errors(as_json):
        fetched_ms = time.time_ns() // 1_000_000
        held = load_collateral(paths)
        inventory = _inventory(held, trust_roots, now_ms)
        wrong = [one for one in inventory.items if one.state in (REFUSED, UNREADABLE)]
        items = items_of(held, inventory, IMPORTED, fetched_ms)
        if wrong or not items:
            raise CollateralRefused(f"{wrong[0].source}: {wrong[0].message}" if wrong else "nothing in it is current")
        kafka, topic = cluster.quiet_properties(), cluster.names.collateral
        with contextlib.closing(CollateralStore(kafka, topic)) as store:
            store.refresh()
            kept = [] if replace else standing_items(store.index, now_ms)
            done = publish_set(kafka, topic, items, kept, store.index, now_ms=fetched_ms)
            store.refresh()
            newest = store.newest(fetched_ms)
        is_newest = newest is not None and newest.view.digest == done.set_digest
        summary = {
            "set": done.set_digest.hex(),
            "items": done.items,
            "new": done.new,
            "kept": done.kept,
            "left_out": len(inventory.items) - len(items),
            "newest": is_newest,
        }
        if as_json:
            say(summary)
        else:
            click.echo(f"set {done.set_digest.hex()}: {done.items} items, {done.new} new, {done.kept} kept")
            if not is_newest:
                click.echo("another set on the topic is newer: workers stay with that", err=True)
        sys.exit(0 if is_newest else EXIT_REFUSED)


@collateral.command(epilog=EXIT_CODES)
@cluster_options
@click.option("--within", default=2.0, show_default=True, type=FiniteRange(0, 3650), help="Warn so many days ahead.")
@at_option
@json_option
def status(cluster: Cluster, within: float, now_ms: int, as_json: bool) -> None:
    """Say which sets stand on the collateral topic, which one each domain's last output rests on, and when it ends.

    Exit 3 if there is no set, or the newest one lacks something within so many days.
    """
    with errors(as_json):
        kafka = cluster.quiet_properties()
        with contextlib.closing(CollateralStore(kafka, cluster.names.collateral)) as store:
            store.refresh()
            found = topic_status(store.index, now_ms, domains_of(kafka, cluster.names.output))
        end_ms = found["ends_ms"]
        found["ok"] = end_ms is not None and end_ms >= now_ms + within * 86_400_000
        if as_json:
            say(found)
        else:
            for line in status_lines(found):
                click.echo(line)
        sys.exit(0 if found["ok"] else EXIT_REFUSED)
