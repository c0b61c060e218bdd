"""Central logs end to end: hostile text, export, and forwarding to a real receiver that goes and comes."""

import argparse
import collections
import gzip
import json
import os
import pathlib
import pty
import re
import select
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import daemon_harness
from daemon_harness import DEADLINE_SECONDS, free_port, wait_for

TAKT = None
SOURCE = None

HOSTILE = r"""services:
  main:
    image: takt/host
    command:
      - sh
      - -c
      - |
        printf 'title \033]0;owned\007 end\n'
        printf 'red \033[31mword\033[0m end\n'
        printf 'clear \033[2J end\n'
        printf 'c1 \302\2332J end\n'
        printf 'bytes \377\000 end\n'
        printf 'script <script>alert(1)</script> end\n'
        exec sleep 100000
"""
# Says a number each 10 ms, into stdout, and the same into a file on a volume.
COUNTER = """services:
  main:
    image: takt/host
    command: ["sh", "-c", "i=0; while [ $$i -lt 100000 ]; do echo level=info number=$$i; i=$$((i+1)); sleep 0.01; done"]
"""
# A gigabyte without a newline, then a word.
ENDLESS = """services:
  main:
    image: takt/host
    command: ["sh", "-c", "head -c 1000000000 /dev/zero | tr '\\\\0' x; echo; echo afterwards; exec sleep 100000"]
"""


class Daemon(daemon_harness.Daemon):
    def __init__(self, data_dir, *arguments):
        super().__init__(TAKT, data_dir, *arguments)

    def search(self, query, limit=10000):
        return self.get(f"/logs?order=oldest&limit={limit}&query=" + urllib.parse.quote(query))["entries"]

    def command(self, *arguments):
        return subprocess.run([TAKT, *arguments, "--host", self.address], capture_output=True,
                              timeout=DEADLINE_SECONDS, check=True)

    def memory_bytes(self):
        return int(pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


class VictoriaLogs:
    """A receiver of Loki's pushes and of OTLP. Its data outlives it."""

    def __init__(self, data_dir, port):
        self.port = port
        self.process = subprocess.Popen(
            [VictoriaLogs.program, f"-storageDataPath={data_dir}", f"-httpListenAddr=127.0.0.1:{port}",
             "-retentionPeriod=100y", "-memory.allowedBytes=100MB"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.is_up, "the receiver")

    def is_up(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def entries(self, query):
        form = urllib.parse.urlencode({"query": query, "limit": 1000000}).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/select/logsql/query", form,
                                    timeout=DEADLINE_SECONDS) as answer:
            return [json.loads(line) for line in answer.read().splitlines()]

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=DEADLINE_SECONDS)


class Moody:
    """A receiver that answers as it is told: a status, or silence."""

    def __init__(self):
        outer = self
        self.status, self.hang, self.headers = 204, threading.Event(), {}
        self.hang.set()
        self.requests = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
                outer.hang.wait()
                outer.requests.append((outer.status, self.headers, body))
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def texts(self):
        return [value[1] for status, _, body in self.requests if status // 100 == 2
                for stream in json.loads(body)["streams"] for value in stream["values"]]

    def stop(self):
        self.hang.set()
        self.server.shutdown()
        self.server.server_close()


class LogsTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.dir = pathlib.Path(directory.name)
        self.daemon = Daemon(self.dir / "data")

    def tearDown(self):
        self.daemon.remove_apps()
        self.daemon.end()

    def forward(self, name):
        return next(f for f in self.daemon.get("/logs/forwards")["forwards"] if f["name"] == name)

    def test_a_log_line_cannot_write_to_the_readers_terminal(self):
        self.daemon.create("hostile", HOSTILE)
        wait_for(lambda: len(self.daemon.search("app=hostile end")) == 6, "the lines")
        for arguments in (["logs", "hostile"], ["search", "app=hostile"]):
            for terminal in (False, True):
                out = self.on_terminal(arguments) if terminal else self.daemon.command(*arguments).stdout
                # What Takt itself paints is a colour; nothing else may be a control.
                plain = re.sub(rb"\x1b\[[0-9;]*m", b"", out).replace(b"\r\n", b"\n")
                self.assertNotRegex(plain, rb"[\x00-\x08\x0b-\x1f\x7f]", (arguments, terminal))
                self.assertNotIn(b"\xc2\x9b", plain)
                self.assertIn(rb"title \x1b]0;owned\x07 end", plain)
                self.assertIn(b"red word end", plain)
                self.assertIn(rb"clear \x1b[2J end", plain)
                self.assertIn(rb"c1 \xc2\x9b2J end", plain)
        lines = self.daemon.command("search", "app=hostile title", "--export", "-").stdout.splitlines()
        self.assertEqual(len(lines), 1)
        self.assertNotIn(b"\x1b", lines[0])
        self.assertEqual(json.loads(lines[0])["text"], "title \x1b]0;owned\x07 end")

    def on_terminal(self, arguments):
        pid, fd = pty.fork()
        if pid == 0:
            os.environ["TERM"] = "xterm-256color"
            os.environ.pop("NO_COLOR", None)
            os.execv(TAKT, [TAKT, *arguments, "--host", self.daemon.address])
        out = b""
        while select.select([fd], [], [], DEADLINE_SECONDS)[0]:
            try:
                piece = os.read(fd, 65536)
            except OSError:
                break
            if not piece:
                break
            out += piece
        os.close(fd)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        return out

    def test_a_gigabyte_without_a_newline_is_cut_and_said_in_bounded_memory(self):
        before = self.daemon.memory_bytes()
        self.daemon.create("endless", ENDLESS)
        most = before

        def done():
            nonlocal most
            most = max(most, self.daemon.memory_bytes())
            return self.daemon.search("app=endless afterwards")

        wait_for(done, "the word after it")
        self.assertLess(most - before, 256 << 20)
        said = self.daemon.search("app=endless takt level=warn")
        self.assertTrue(said)
        accounted = sum(len(e["text"]) for e in self.daemon.search("app=endless xxxx"))
        for entry in said:
            accounted += int(re.match(r"\[takt: (\d+) bytes", entry["text"])[1])
        # Every byte is kept or said to be gone (frames of the instance's log count a little more).
        self.assertGreaterEqual(accounted, 990_000_000)

    def test_exports_to_a_file_plain_and_packed(self):
        self.daemon.create("counter", COUNTER)
        wait_for(lambda: len(self.daemon.search("app=counter")) >= 100, "lines")
        plain, packed = self.dir / "all.ndjson", self.dir / "all.ndjson.gz"
        self.daemon.command("logs", "counter", "--export", str(plain))
        self.daemon.command("search", "app=counter number=7", "-o", str(packed))
        numbers = [json.loads(line)["text"] for line in plain.read_text().splitlines()]
        self.assertGreaterEqual(len(numbers), 100)
        self.assertEqual(numbers[:100], [f"level=info number={i}" for i in range(100)])
        with gzip.open(packed, "rt") as lines:
            self.assertEqual([json.loads(line)["text"] for line in lines], ["level=info number=7"])
        self.assertEqual(list(self.dir.glob("*.part")), [])

    def test_a_receiver_that_goes_and_comes_and_a_killed_daemon_lose_nothing(self):
        port = free_port()
        storage = self.dir / "victoria"
        receiver = VictoriaLogs(storage, port)
        self.addCleanup(lambda: receiver.stop())
        base = f"http://127.0.0.1:{port}/insert"
        self.daemon.command("forward", "add", "loki", "loki", f"{base}/loki/api/v1/push", "--query", "app=counter")
        self.daemon.command("forward", "add", "otlp", "otlp", f"{base}/opentelemetry/v1/logs",
                            "--query", "app=counter", "--header", "VL-Extra-Fields: via=otlp")
        self.daemon.create("counter", COUNTER)
        by_loki = lambda: receiver.entries('app:=counter service:=main level:=info')
        by_otlp = lambda: receiver.entries('via:=otlp')
        wait_for(lambda: len(by_loki()) > 100 and len(by_otlp()) > 100, "entries at the receiver")
        receiver.stop()
        behind = wait_for(lambda: self.forward("loki")["state"] == "failing" and
                          self.forward("loki")["behind_entries"], "the forward to fall behind")
        self.assertGreater(behind, 0)
        self.daemon.kill()
        self.daemon = Daemon(self.dir / "data")
        wait_for(lambda: self.forward("loki")["state"] == "failing", "the new daemon to try")
        receiver = VictoriaLogs(storage, port)
        wait_for(lambda: self.forward("loki")["sent_entries"] > 0 and self.forward("otlp")["sent_entries"] > 0,
                 "the forward to go on")
        self.daemon.kill()
        self.daemon = Daemon(self.dir / "data")
        self.daemon.call("POST", "/apps/counter/stop")
        last = None

        def everything_arrived():
            nonlocal last
            here = {e["text"] for e in self.daemon.search("app=counter number", 10000)}
            last = (len(here), here - {e["_msg"] for e in by_loki()}, here - {e["_msg"] for e in by_otlp()})
            return len(here) > 200 and not last[1] and not last[2]

        wait_for(everything_arrived, "every entry to arrive both ways")
        entry = by_otlp()[0]
        self.assertEqual(entry["service.namespace"], "counter")
        self.assertEqual(entry["service.name"], "main")
        self.assertEqual(entry["severity_text"], "info", entry)
        times = {e["_msg"]: e["_time"] for e in by_loki()}
        here = self.daemon.search("app=counter number=5")[0]
        self.assertEqual(times[here["text"]][:23], here["time"][:23])
        metrics = urllib.request.urlopen(f"http://{self.daemon.address}/metrics").read().decode()
        self.assertRegex(metrics, r'takt_log_forward_sent_entries_total{forward="loki"} \d+')

    def test_a_receiver_in_a_bad_mood_delays_only_itself(self):
        moody, calm = Moody(), Moody()
        self.addCleanup(moody.stop)
        self.addCleanup(calm.stop)
        for name, url in (("moody", moody.url), ("calm", calm.url)):
            self.daemon.call("PUT", f"/logs/forwards/{name}", {"kind": "loki", "url": url, "query": "app=counter"})
        moody.hang.clear()
        self.daemon.create("counter", COUNTER)
        wait_for(lambda: len(calm.texts()) > 100, "the calm one")
        self.assertEqual(moody.texts(), [])
        moody.status = 500
        moody.hang.set()
        wait_for(lambda: self.forward("moody")["failed_attempts"] > 0, "a failure")
        moody.status, moody.headers = 429, {"Retry-After": "1"}
        wait_for(lambda: any(status == 429 for status, _, _ in moody.requests), "another failure")
        moody.status, moody.headers = 204, {}
        wait_for(lambda: len(moody.texts()) > 100, "what it missed")
        twice = [t for t, n in collections.Counter(moody.texts()).items() if n > 1]
        self.assertEqual(twice, [], "no daemon died: nothing comes twice")
        self.assertEqual(moody.texts()[:100], [f"level=info number={i}" for i in range(100)])
        # The daemon ends at once though a request hangs.
        moody.hang.clear()
        time_before = time.monotonic()
        self.daemon.end()
        self.assertLess(time.monotonic() - time_before, DEADLINE_SECONDS)
        self.daemon = Daemon(self.dir / "data")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=pathlib.Path, required=True)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    arguments, rest = parser.parse_known_args()
    SOURCE, TAKT = arguments.source, str(arguments.build / "bin/takt")
    VictoriaLogs.program = subprocess.run([SOURCE / "scripts/victoria_logs.sh"], capture_output=True,
                                          text=True, check=True).stdout.strip()
    unittest.main(argv=[sys.argv[0], *rest])
