"""`python -m tests.broker`: a broker until Ctrl-C. `--check`: is what it needs installed?"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from tests.broker.kafka import BrokerError, KafkaBroker, install_line, missing_tools


def _broker_on(port: int | None) -> type[KafkaBroker]:
    """A broker whose clients find it at `port`; None: wherever there is room."""

    class Fixed(KafkaBroker):
        def __init__(self, directory: Path, overrides: dict[str, str] | None = None) -> None:
            super().__init__(directory, overrides)
            self.port = port or self.port

    return Fixed


def main() -> int:
    """Return the exit code: 0 fine, 1 something is missing or failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.broker", description=__doc__)
    parser.add_argument("--check", action="store_true", help="say whether Java >= 17 and mvn are there, and stop")
    parser.add_argument("--port", type=int, help="listen there on 127.0.0.1; else on a free port")
    options = parser.parse_args()
    missing = missing_tools()
    if missing:
        print(f"missing: {', '.join(missing)}\ninstall with: {install_line(missing)}", file=sys.stderr)
        return 1
    if options.check:
        print("Java >= 17 and mvn are installed: the broker tests can run.")
        return 0
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    try:
        with _broker_on(options.port).start() as broker:
            print(broker.bootstrap, flush=True)
            while not done.wait(1.0):  # a bounded wait: signals are delivered between two of them
                if broker.pid is None:
                    return 1
    except BrokerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
