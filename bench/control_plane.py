"""What 200 apps cost: resident size of the daemon, GET /apps, apply to process start, idle CPU.

Starts a daemon of its own on a free port with an empty data directory, deploys the apps over the
public API, measures, removes everything. Prints a table and writes JSON.
"""

import argparse
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

TEMPLATE = """services:
  main:
    image: takt/host
    command: ["sh", "-c", "echo started at $$(date +%s%N); exec sleep 100000"]
"""


class Daemon:
    def __init__(self, build):
        self.dir = tempfile.TemporaryDirectory(prefix="takt-bench-")
        self.takt = str(pathlib.Path(build) / "bin" / "takt")
        self.process = subprocess.Popen(
            [self.takt, "daemon", "--data-dir", self.dir.name, "--listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in self.process.stdout:
            if "http://" in line:
                self.url = "http://" + line.split("http://")[1].split()[0].strip("/")
                break
        else:
            sys.exit("the daemon did not say its address")

    def call(self, method, path, body=None):
        request = urllib.request.Request(
            self.url + "/api/v1" + path, method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mb(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        return 0.0

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)
        self.dir.cleanup()


def wait_for(condition, deadline_s, what):
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    sys.exit(f"gave up after {deadline_s} s waiting for {what}")


def started_at_ns(daemon, name):
    """When the app's process says that it started, by its own clock, in ns; None before that."""
    for line in daemon.call("GET", f"/apps/{name}/logs?tail=5")["lines"]:
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

    daemon = Daemon(options.build)
    try:
        starts = []
        for i in range(options.apps):
            before = time.time_ns()
            daemon.call("POST", "/apps", {"name": f"app{i}", "template": TEMPLATE})
            if i % 10 == 0:  # the process says itself when it started
                at = wait_for(lambda i=i: started_at_ns(daemon, f"app{i}"), 30, f"app{i} to start")
                starts.append((at - before) / 1e6)
        wait_for(lambda: sum(a["state"] == "running" for a in daemon.call("GET", "/apps")["apps"])
                 == options.apps, 120, "every app to run")
        lists = []
        for _ in range(50):
            t = time.perf_counter()
            daemon.call("GET", "/apps")
            lists.append((time.perf_counter() - t) * 1e3)
        cpu, wall = daemon.cpu_seconds(), time.monotonic()
        time.sleep(options.idle_seconds)
        idle = (daemon.cpu_seconds() - cpu) / (time.monotonic() - wall) * 100
        report = {
            "apps": options.apps,
            "resident_mb": round(daemon.resident_mb(), 1),
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
        for i in range(options.apps):
            daemon.call("DELETE", f"/apps/app{i}")
        wait_for(lambda: not daemon.call("GET", "/apps")["apps"], 120, "every app to go")
    finally:
        daemon.close()


if __name__ == "__main__":
    main()
