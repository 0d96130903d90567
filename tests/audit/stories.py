"""Stories that publish something of every kind an audit meets."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from tests.audit.site import Site, site_of
from tests.core import fleet
from tests.core.fleet import GPUS, T0, report_of, seal, session_of
from tests.core.story import Story, W, small_policy

HOSTS = ("h0", "h1", "h2")


def tell(windows: int = 5, *, strays: bool = True) -> Story:
    """A domain of three hosts: refusals of each window, duplicates, a late revision, records of no domain."""
    view = small_policy(3)
    story = Story(view)
    if strays:
        story.report("h0", 0, seq=50)  # before anybody knows the domain
        story.report("h1", 0, seq=51)
    story.control("POLICY_SWITCH", view)
    for window in range(windows):
        for host in HOSTS:
            if (host, window) != ("h2", 1):
                story.report(host, window)
        story.report("h0", window)  # again
        story.report("h1", window, classes=(fleet.gpu_class(3, gpus=GPUS + 1),))
        if window == 2:
            story.put("d", b"no record")
            story.report("h2", 1)  # late: a revision
        if window == 3 and strays:
            story.report("h1", 3, seq=52, domain="elsewhere", session=session_of("h1", "d"))  # at another key
            body = report_of(session_of("h1", "d"), story.now_ms, 53, domain="elsewhere")
            story.put("elsewhere", seal(session_of("h1", "d"), body).value(None))  # of a domain that nobody knows
    return story


@cache
def told() -> Site:
    """What was published of `tell()`; not to be changed."""
    return site_of(tell())


def fresh(windows: int = 5) -> Site:
    """The same to change."""
    return site_of(tell(windows))


__all__ = ["HOSTS", "T0", "W", "fresh", "replace", "seal", "tell", "told"]
