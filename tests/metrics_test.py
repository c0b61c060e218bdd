"""Monitoring of a whole daemon: GPUs, targets that misbehave, services that scale."""

import argparse
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.parse

from daemon_harness import Daemon, wait_for

TAKT = None
NVML = None

# Targets by name: what each answers to a scrape, on the port in its environment.
TARGETS = r"""
import os, socket, sys, threading, time
GOOD = b"# TYPE answers_total counter\nanswers_total %d\n"
OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
kind, port, counter = sys.argv[1], int(sys.argv[2]), 0
def serve(c):
    global counter
    try:
        c.recv(65536)
        if kind == "hang":
            time.sleep(1000)
        elif kind == "good":
            counter += 1
            c.sendall(OK + b"\r\n" + GOOD % counter)
        elif kind == "huge":
            c.sendall(OK + b"Content-Length: 1073741824\r\n\r\n")
            for _ in range(1024):
                c.sendall(b"a 1\n" * 262144)
        elif kind == "endless":
            c.sendall(OK + b"\r\n")
            while True:
                c.sendall(b"a 1\n" * 262144)
        elif kind == "slow":
            for byte in OK + b"\r\n" + GOOD * 1000:
                c.sendall(bytes([byte]))
                time.sleep(0.2)
        elif kind == "html":
            c.sendall(OK + b"\r\n<!doctype html><html><body>hello</body></html>")
        elif kind == "wrong":
            c.sendall(OK + b"\r\nanswers_total{a=1} x\n\xff\x00\xfe")
        elif kind == "wide":
            c.sendall(OK + b'\r\nwide{l="' + b"x" * 100000 + b'"} 1\nnarrow 1\n')
    except OSError:
        pass
    finally:
        c.close()
listener = socket.create_server(("127.0.0.1", port))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""

# Writes training events: a loss that is a number twice and then none, and goes on living.
TRAINER = r"""
import struct, sys, time
def crc(data):
    c = 0xffffffff
    for byte in data:
        c ^= byte
        for _ in range(8):
            c = c >> 1 ^ (0x82f63b78 if c & 1 else 0)
    c ^= 0xffffffff
    return ((c >> 15 | c << 17) + 0xa282ead8) & 0xffffffff
def field(number, data):
    return bytes([number << 3 | 2, len(data)]) + data
def record(data):
    head = struct.pack("<Q", len(data))
    return head + struct.pack("<I", crc(head)) + data + struct.pack("<I", crc(data))
with open(sys.argv[1] + "/events.out.tfevents.1.a", "wb") as out:
    def event(data):
        out.write(record(b"\x09" + struct.pack("<d", time.time()) + data))
        out.flush()
    event(field(3, b"brain.Event:2"))
    for step, loss in enumerate([0.9, 0.8, float("nan"), float("nan"), float("nan")]):
        value = field(1, b"loss") + b"\x15" + struct.pack("<f", loss)
        event(b"\x10" + bytes([step + 1]) + field(5, field(1, value)))
        time.sleep(0.2)
time.sleep(100000)
"""


class MetricsTest(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory(prefix="takt-metrics-test-")
        self.addCleanup(holder.cleanup)
        self.directory = pathlib.Path(holder.name)

    def start(self, *arguments):
        self.daemon = Daemon(
            TAKT, self.directory / "data", *arguments,
            env={"TAKT_FAKE_NVML": str(self.directory / "nvml"), "PATH": "/usr/bin:/bin"})
        self.addCleanup(self.daemon.end)
        self.addCleanup(self.daemon.remove_apps)

    def newest(self, name, match=""):
        return self.daemon.get("/metrics/newest?" + urllib.parse.urlencode({"name": name, "match": match}))[
            "series"]

    def test_gpus_and_who_uses_their_memory(self):
        script = self.directory / "nvml"
        script.write_text("gpu NVIDIA-T4 37 1000 16000 61 70500\n")
        self.start("--nvml", NVML)
        # The program is a grandchild of the instance's first process, as a framework's worker is.
        self.daemon.create("trainer", """services:
  main:
    image: takt/host
    command: ["sh", "-c", "sh -c 'sleep 100037 & wait' & wait"]
""")
        [gpu] = wait_for(lambda: self.newest("takt_gpu_utilization_ratio"), "the GPU")
        self.assertEqual(gpu["labels"], {"gpu": "0", "product": "NVIDIA-T4"})
        self.assertEqual(gpu["value"], 0.37)

        def sleeper():
            found = subprocess.run(["pgrep", "-f", "^sleep 100037$"], capture_output=True, text=True)
            return found.stdout.split()
        pid = wait_for(sleeper, "the program")[-1]
        script.write_text("gpu NVIDIA-T4 37 1000 16000 61 70500\n"
                          f"process 0 {pid} 800\nprocess 0 1 5\n")
        [memory] = wait_for(lambda: self.newest("takt_instance_gpu_memory_bytes"), "its memory")
        labels = memory["labels"]
        self.assertEqual((labels["app"], labels["service"], labels["gpu"]), ("trainer", "main", "0"))
        self.assertEqual(memory["value"], 800)


    def test_targets_that_misbehave_are_counted_and_harm_nobody(self):
        self.start()
        script = self.directory / "targets.py"
        script.write_text(TARGETS)
        kinds = ["good", "hang", "huge", "endless", "slow", "html", "wrong", "wide"]
        services = ""
        for kind in kinds:
            with socket.socket() as listener:
                listener.bind(("127.0.0.1", 0))
                port = listener.getsockname()[1]
            services += f"""
  {kind}:
    image: takt/host
    command: ["python3", "{script}", "{kind}", "{port}"]
    ports: ["{port}:{port}"]
    volumes: ["{self.directory}:{self.directory}"]
    labels: {{takt.metrics: {port}/metrics}}"""
        self.daemon.create("targets", "services:" + services)
        up = wait_for(lambda: (lambda s: len(s) == len(kinds) and s)(self.newest("takt_target_up")),
                      "all targets to have been asked")

        def states():
            return {s["labels"]["service"]: s["value"] for s in self.newest("takt_target_up")}
        expected = {kind: float(kind in ("good", "wide")) for kind in kinds}
        wait_for(lambda: states() == expected, f"{expected}, got {up}")
        [failed] = self.newest("takt_scrapes_failed_total")
        self.assertGreaterEqual(failed["value"], 6)
        # The good one is asked on, each five seconds, whatever the others do.
        wait_for(lambda: self.newest("answers_total")[0]["value"] >= 4, "four good answers")
        asked = self.newest("answers_total")[0]["value"]
        began = time.monotonic()
        wait_for(lambda: self.newest("answers_total")[0]["value"] >= asked + 3, "three more")
        self.assertLess(time.monotonic() - began, 60)
        self.assertEqual(self.newest("a"), [])
        self.assertEqual(self.newest("wide"), [])  # its label is too long; the rest is taken
        self.assertEqual(len(self.newest("narrow")), 1)
        status = pathlib.Path(f"/proc/{self.daemon.process.pid}/status").read_text()
        peak = next(int(line.split()[1]) for line in status.splitlines()
                    if line.startswith("VmHWM"))
        self.assertLess(peak, 400 << 10)  # kB; the answers are 1 GB and more
        # The rules that come with it have nothing to say, but of this machine itself.
        self.assertEqual([a for a in self.daemon.get("/alerts")["alerts"]
                          if a["rule"] not in ("disk_almost_full", "memory_almost_exhausted")], [])

    def test_a_loss_that_is_no_number_is_an_event_and_an_alert(self):
        self.start()
        script = self.directory / "trainer.py"
        script.write_text(TRAINER)
        self.daemon.create("trainer", f"""services:
  main:
    image: takt/host
    command: ["python3", "{script}", "/events"]
    volumes: ["events:/events", "{self.directory}:{self.directory}"]
    labels: {{takt.learning: /events}}
volumes:
  events: {{}}
""")
        alert = wait_for(lambda: [a for a in self.daemon.get("/alerts")["alerts"]
                                  if a["rule"] == "training_goes_wrong"
                                  and a["state"] == "firing"], "the alert")[0]
        self.assertEqual(alert["labels"], {"app": "trainer", "kind": "not_finite", "run": "1"})
        self.assertEqual(alert["summary"], "run 1 of trainer goes wrong: not_finite")
        events = self.daemon.get("/events?app=trainer")["events"]
        self.assertTrue([e for e in events if e["kind"] == "learning" and "run 1" in e["message"]
                         and e["level"] == "warning"], events)
        self.assertTrue([e for e in events if e["kind"] == "alert"], events)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--source")
    parser.add_argument("--build", required=True)
    options, rest = parser.parse_known_args()
    build = pathlib.Path(options.build).resolve()
    TAKT = str(build / "bin" / "takt")
    NVML = str(build / "src" / "metrics" / "libfake_nvml.so")
    unittest.main(argv=[sys.argv[0], *rest], verbosity=1)
