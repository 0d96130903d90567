"""The agent itself: does one answer at `listen`, and what does it say of its own state?"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from typing import Any

from enclavescale.checkup.finding import Finding, fail, failed, ok, skip, warn
from enclavescale.endpoint import parse_address
from schemas.errors import ConfigError

MAX_BYTES = 64 << 10
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  told apart, not bound
_READY, _NOT_READY = 200, 503


def check_running(listen: str, timeout_s: float) -> Iterator[Finding]:
    """Ask `/readyz`. Nobody there is no failure: the agent may be stopped on purpose."""
    check = "agent.ready"
    if not listen:
        yield skip(check, "`listen` is not set: no metrics, no probes, nothing to ask")
        return
    try:
        host, port = parse_address(listen)
    except ConfigError as error:
        yield failed("agent.listen", error)
        return
    connection = http.client.HTTPConnection(_WILDCARDS.get(host, host), port, timeout=timeout_s)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        status, state = answer.status, json.loads(answer.read(MAX_BYTES))
    except ConnectionRefusedError:
        yield skip(check, f"no agent answers at {listen}: it is stopped, or was started with another file")
        return
    except (OSError, http.client.HTTPException, ValueError) as error:
        remedy = f"See who listens there (`ss -ltnp sport = :{port}`): the agent needs the address for itself."
        yield fail(check, f"{listen} gives no answer of an agent ({type(error).__name__})", remedy)
        return
    finally:
        connection.close()
    yield from _judge(check, listen, status, state)


def _judge(check: str, listen: str, status: int, state: Any) -> Iterator[Finding]:
    checks = state.get("checks") if isinstance(state, Mapping) else None
    if status not in (_READY, _NOT_READY) or not isinstance(checks, list):
        remedy = "Another program answers there: give the agent another address in `listen`."
        yield fail(check, f"{listen} is no agent's endpoint (status {status})", remedy)
        return
    wrong = [one for one in checks if isinstance(one, Mapping) and one.get("state") != "ok"]
    if status == _READY and not wrong:
        yield ok(check, f"the agent at {listen} is ready")
        return
    for one in wrong:
        # What is only shown, and what has not happened yet, keep nobody from working.
        soft = one.get("needed_for") == "shown" or one.get("state") == "waiting"
        make = warn if soft else fail
        age = one.get("last_ok_s_ago")
        since = f", last well {age:,.0f} s ago" if isinstance(age, int | float) else ""
        detail = f": {one['detail']}" if one.get("detail") else ""
        code = one.get("code") if isinstance(one.get("code"), str) else None
        remedy = "docs/agent.md says what each check of /readyz means; the agent's log says more."
        yield make(check, f"{one.get('state')}{since}{detail}", remedy, str(one.get("check")), code=code)
