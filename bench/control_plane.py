"""What 200 apps cost: resident size of the daemon, GET /apps, apply to process start, idle CPU.

Starts a daemon of its own on a free port with an empty data directory, deploys the apps over the
public API, measures, removes everything. Prints a table and writes JSON.
"""

import argparse
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))
from daemon_harness import Daemon, wait_for

TEMPLATE = """services:
  main:
    image: takt/host
    command: ["sh", "-c", "echo started at $$(date +%s%N); exec sleep 100000"]
"""


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def started_at_ns(daemon, name):
    """When the app's process says that it started, by its own clock, in ns; None before that."""
    for line in daemon.get(f"/apps/{name}/logs?tail=5")["lines"]:
        if line["text"].startswith("started at "):
            return int(line["text"].split()[-1])
    return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--apps", type=int, default=200)
    parser.add_argument("--idle-seconds", type=float, default=20)
    parser.add_argument("--json", default="")
    options = parser.parse_args()

    directory = tempfile.TemporaryDirectory(prefix="takt-bench-")
    daemon = Daemon(str(pathlib.Path(options.build) / "bin" / "takt"), directory.name)
    try:
        starts = []
        for i in range(options.apps):
            before = time.time_ns()
            daemon.create(f"app{i}", TEMPLATE)
            if i % 10 == 0:  # the process says itself when it started
                at = wait_for(lambda i=i: started_at_ns(daemon, f"app{i}"), f"app{i} to start")
                starts.append((at - before) / 1e6)
        wait_for(lambda: sum(a["state"] == "running" for a in daemon.get("/apps")["apps"])
                 == options.apps, "every app to run")
        lists = []
        for _ in range(50):
            t = time.perf_counter()
            daemon.get("/apps")
            lists.append((time.perf_counter() - t) * 1e3)
        cpu, wall = cpu_seconds(daemon.process.pid), time.monotonic()
        time.sleep(options.idle_seconds)
        idle = (cpu_seconds(daemon.process.pid) - cpu) / (time.monotonic() - wall) * 100
        report = {
            "apps": options.apps,
            "resident_mb": round(resident_mb(daemon.process.pid), 1),
            "get_apps_ms": {"median": round(statistics.median(lists), 2), "max": round(max(lists), 2)},
            "apply_to_start_ms": {"median": round(statistics.median(starts), 1), "max": round(max(starts), 1)},
            "idle_cpu_percent": round(idle, 2),
        }
        print(f"{'apps':<32}{report['apps']}")
        print(f"{'daemon, resident':<32}{report['resident_mb']} MB")
        print(f"{'GET /apps, median / max':<32}{report['get_apps_ms']['median']} / {report['get_apps_ms']['max']} ms")
        print(f"{'apply to process start':<32}{report['apply_to_start_ms']['median']} / {report['apply_to_start_ms']['max']} ms")
        print(f"{'daemon, idle':<32}{report['idle_cpu_percent']} % of a core")
        if options.json:
            pathlib.Path(options.json).write_text(json.dumps(report, indent=2) + "\n")
        daemon.remove_apps()
    finally:
        daemon.end()
        directory.cleanup()


if __name__ == "__main__":
    main()
