"""Peak memory of a client and of its worker; prints JSON. A process of its own, so that the peaks are its own."""

import json
import sys
from pathlib import Path

from FoundationSegLib.worker.client import ask

from .worker import box_request, finish_ahead, large_volume, worker_client


def peak_mb(pid: int | str = "self") -> float:
    """The largest memory that a process ever had resident, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1000
    raise SystemExit("memory can be measured on Linux only")


def main() -> None:
    volume = large_volume()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = peak_mb()
    with worker_client() as client:
        client.send_volume(volume)
        finish_ahead(client, volume)
        for grown in range(10):
            ask(client, box_request(volume, grown))
        sys.stdout.write(json.dumps({"client_mb": peak_mb() - before, "worker_mb": peak_mb(client.worker_pid)}))


if __name__ == "__main__":
    main()
