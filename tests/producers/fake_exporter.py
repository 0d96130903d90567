"""A DCGM exporter on a free port of this machine, and what one writes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from producers.sample.dcgm_exporter import FIELD

Answer = Callable[[BaseHTTPRequestHandler], None]

H100 = "NVIDIA H100 80GB HBM3"
# As dcgm-exporter 3.x and 4.x write it, shortened.
TEXT = f"""\
# HELP DCGM_FI_DEV_SM_CLOCK SM clock frequency (in MHz).
# TYPE DCGM_FI_DEV_SM_CLOCK gauge
DCGM_FI_DEV_SM_CLOCK{{gpu="0",UUID="GPU-a",pci_bus_id="00000000:1B:00.0",device="nvidia0",modelName="{H100}"}} 1980
# HELP {FIELD} Power draw (in W).
# TYPE {FIELD} gauge
{FIELD}{{gpu="1",UUID="GPU-b",pci_bus_id="00000000:43:00.0",device="nvidia1",modelName="{H100}",Hostname="h",\
DCGM_FI_DRIVER_VERSION="550.90.07",container="train",namespace="ml",pod="job-1"}} 612.345000
{FIELD}{{gpu="0",UUID="GPU-a",pci_bus_id="00000000:1B:00.0",device="nvidia0",modelName="{H100}",Hostname="h",\
DCGM_FI_DRIVER_VERSION="550.90.07"}} 70.114
{FIELD}{{gpu="2",UUID="GPU-c",pci_bus_id="00000000:61:00.0",device="nvidia2",modelName="NVIDIA L4",Hostname="h"}} 33
# HELP DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION Total energy consumption since boot (in mJ).
# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{gpu="0",UUID="GPU-a",modelName="{H100}"}} 9371934
"""


def row(uuid: str, watts: object, *, model: str = H100, more: str = "", gpu: int = 0, at: str = "") -> str:
    return f'{FIELD}{{gpu="{gpu}",UUID="{uuid}",modelName="{model}"{more}}} {watts}{at}\n'


@dataclass
class Exporter:
    """A server on a free port of this machine that answers what it is told, and counts."""

    answer: Callable[[BaseHTTPRequestHandler], None]
    url: str = ""
    asked: int = 0
    paths: list[str] = field(default_factory=list)


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[Exporter]:
    exporter = Exporter(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            exporter.asked += 1
            exporter.paths.append(self.path)
            try:
                exporter.answer(self)
            except OSError:
                self.close_connection = True  # the client has hung up, as it should

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    exporter.url = f"http://127.0.0.1:{server.server_address[1]}/metrics"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield exporter
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def text_answer(text: str | bytes = TEXT, length: int | None = None) -> Callable[[BaseHTTPRequestHandler], None]:
    body = text.encode() if isinstance(text, str) else text

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/plain; version=0.0.4")
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    return answer
