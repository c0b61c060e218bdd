"""The daemon as a process: what survives its death, what it refuses to start with, who may ask."""

import argparse
import hashlib
import http.client
import os
import pathlib
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import unittest

import daemon_harness
from daemon_harness import DEADLINE_SECONDS, wait_for

TAKT = None

COUNTER = """services:
  main:
    image: takt/host
    command: ["sh", "-c", "i=0; while [ $$i -lt 100000 ]; do echo line $$i; i=$$((i+1)); sleep 0.02; done"]
"""
SHORT = """services:
  main:
    image: takt/host
    command: ["sh", "-c", "echo waiting; while [ ! -e {flag} ]; do sleep 0.02; done; echo done; exit 7"]
"""
# Exports version 1 anew each time it runs.
TRAINER = """services:
  main:
    image: takt/host
    command: ["sh", "-c", "mkdir -p /made/1; echo graph > /made/1/saved_model.pb"]
    volumes: ["made:/made"]
    labels: {takt.model: digits=/made}
volumes:
  made: {}
"""


class Daemon(daemon_harness.Daemon):
    def __init__(self, data_dir, *arguments, **options):
        super().__init__(TAKT, data_dir, *arguments, **options)

    def app(self, name):
        return self.get(f"/apps/{name}")

    def instance(self, name):
        return self.app(name)["services"][0]["instances"][-1]

    def lines(self, name):
        return [line["text"] for line in self.get(f"/apps/{name}/logs?tail=10000")["lines"]]


class DaemonTest(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory(prefix="takt-daemon-test-")
        self.addCleanup(holder.cleanup)
        self.dir = pathlib.Path(holder.name) / "data"
        self.addCleanup(self.end_instances)  # where a test failed before its daemon could

    def end_instances(self):
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if "takt-shim" in command and str(self.dir) in command:
                os.kill(int(process.name), signal.SIGKILL)

    def start(self, *arguments, **options):
        daemon = Daemon(self.dir, *arguments, **options)
        self.addCleanup(self.finish, daemon)
        return daemon

    def finish(self, daemon):
        if daemon.process.poll() is not None:
            return
        daemon.remove_apps()
        self.assertEqual(daemon.end()[0], 0)

    def refused(self, *arguments, data_dir=None):
        """A daemon that does not start: its exit status and the one sentence that it says."""
        done = subprocess.run([TAKT, "daemon", "--data-dir", str(data_dir or self.dir), *arguments],
                              capture_output=True, text=True, timeout=DEADLINE_SECONDS)
        self.assertNotIn("http://", done.stdout)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        return done.returncode, done.stderr

    def test_kill_9_harms_nothing(self):
        flag = pathlib.Path(tempfile.mkdtemp(prefix="takt-flag-", dir="/var/tmp")) / "go"
        self.addCleanup(lambda: (flag.unlink(missing_ok=True), flag.parent.rmdir()))
        first = self.start()
        first.create("count", COUNTER)
        first.create("short", SHORT.format(flag=f"{flag}"))
        wait_for(lambda: len(first.lines("count")) > 5, "the first lines")
        wait_for(lambda: "waiting" in first.lines("short"), "the short one to wait")
        before = first.instance("count")
        short = first.instance("short")
        first.kill()

        flag.touch()  # one ends while there is no daemon
        wait_for(lambda: not pathlib.Path(f"/proc/{short['pid']}").exists(), "the short one to end")
        second = self.start()
        after = second.instance("count")
        self.assertEqual((after["id"], after["pid"], after["restarts"], after["state"]),
                         (before["id"], before["pid"], 0, "running"))
        self.assertEqual(second.app("count")["state"], "running")
        ended = wait_for(lambda: second.instance("short")["exit_code"] is not None
                         and second.instance("short"), "the end to be known")
        self.assertEqual((ended["id"], ended["state"], ended["exit_code"]),
                         (short["id"], "exited", 7))
        self.assertEqual(second.lines("short"), ["waiting", "done"])
        seen = len(second.lines("count"))
        lines = wait_for(lambda: (lambda got: len(got) > seen and got)(second.lines("count")),
                         "more lines")
        self.assertEqual(lines, [f"line {i}" for i in range(len(lines))])
        events = [e["kind"] for e in second.get("/events?app=count")["events"]]
        self.assertEqual(events.count("created"), 1)

    def test_a_signal_ends_it_and_instances_go_on(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            daemon = self.start()
            if number == signal.SIGTERM:
                daemon.create("count", COUNTER)
            wait_for(lambda: daemon.app("count")["state"] == "running", "the app to run")
            pid = daemon.instance("count")["pid"]
            stream = http.client.HTTPConnection(daemon.address, timeout=DEADLINE_SECONDS)
            stream.request("GET", "/api/v1/stream")
            self.assertEqual(stream.getresponse().status, 200)  # an open stream does not hold it up
            status, stderr = daemon.end(number)
            stream.close()
            self.assertEqual(status, 0, stderr)
            self.assertIn("instances go on", stderr)
            self.assertTrue(pathlib.Path(f"/proc/{pid}").exists())
        daemon = self.start()
        self.assertEqual(daemon.instance("count")["pid"], pid)

    def test_a_second_daemon_on_the_directory_is_refused(self):
        daemon = self.start()
        status, said = self.refused("--listen", "127.0.0.1:0")
        self.assertEqual(status, 4)
        self.assertIn(str(self.dir), said)
        self.assertIn(str(daemon.process.pid), said)
        self.assertEqual(daemon.get("/apps"), {"apps": []})

    def test_a_port_in_use_is_refused_and_nothing_is_touched(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            status, said = self.refused("--listen", f"127.0.0.1:{port}")
        self.assertEqual(status, 4)
        self.assertIn(f"127.0.0.1:{port} is in use", said)
        self.assertFalse(self.dir.exists())

    def test_a_corrupt_database_is_kept_and_its_backup_offered(self):
        daemon = self.start()
        daemon.create("count", COUNTER)
        wait_for((self.dir / "takt.db.backup").exists, "a backup")
        daemon.end()
        database = self.dir / "takt.db"
        for name in ("takt.db-wal", "takt.db-shm"):
            (self.dir / name).unlink(missing_ok=True)
        database.write_bytes(b"not a database at all" * 1000)
        broken = hashlib.sha256(database.read_bytes()).hexdigest()
        status, said = self.refused("--listen", "127.0.0.1:0")
        self.assertEqual(status, 1)
        self.assertIn("takt.db", said)
        self.assertIn("The last backup is", said)
        self.assertEqual(hashlib.sha256(database.read_bytes()).hexdigest(), broken)
        command = said[said.index("mv "):said.index("; then start the daemon again")]
        subprocess.run(["sh", "-ec", command], check=True)
        again = self.start()
        self.assertEqual([app["name"] for app in again.get("/apps")["apps"]], ["count"])
        wait_for(lambda: again.app("count")["state"] == "running", "the app, as it was")

    def test_what_it_cannot_start_with_is_one_sentence(self):
        parent = self.dir.parent
        (parent / "file").write_text("x")
        (parent / "short").write_text("x\n")
        (parent / "odd").write_text("a token with blanks and more\n")
        for arguments, data_dir, status, said in (
                (["--listen", "nowhere"], None, 2, "expected HOST:PORT"),
                (["--listen", "127.0.0.1:99999"], None, 2, "expected HOST:PORT"),
                (["--listen", "no.such.host.invalid:0"], None, 2, "no.such.host.invalid"),
                (["--runtime", "docker", "--listen", "127.0.0.1:0"], None, 2, "expected embedded"),
                (["--listen", "0.0.0.0:0"], None, 2, "--token-file"),
                (["--listen", "127.0.0.1:0", "--token-file", parent / "short"], None, 2,
                 "at least 16 characters"),
                (["--listen", "127.0.0.1:0", "--token-file", parent / "odd"], None, 2, "in one line"),
                (["--listen", "127.0.0.1:0"], parent / "file", None, str(parent / "file")),
                (["--listen", "127.0.0.1:0"], parent / "file" / "below", None, "file")):
            with self.subTest(arguments=arguments):
                code, text = self.refused(*map(str, arguments), data_dir=data_dir)
                self.assertIn(said, text)
                if status is None:
                    self.assertNotEqual(code, 0)
                else:
                    self.assertEqual(code, status)
        self.assertFalse(self.dir.exists())

    def test_a_token_is_made_kept_and_asked_for(self):
        path = self.dir.parent / "token"
        daemon = self.start("--token-file", str(path), token="")
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertEqual(daemon.call("GET", "/apps")[0], 401)
        self.assertEqual(daemon.call("GET", "/")[0], 200)  # the console asks for the token itself
        daemon.token = path.read_text().strip()
        self.assertEqual(daemon.call("GET", "/apps")[0], 200)
        done = subprocess.run([TAKT, "apps", "--host", daemon.address, "--token-file", str(path)],
                              capture_output=True, text=True, timeout=DEADLINE_SECONDS)
        self.assertEqual(done.returncode, 0, done.stderr)
        daemon.end()
        again = self.start("--token-file", str(path), token=daemon.token)
        self.assertEqual(again.call("GET", "/apps")[0], 200)

    def test_other_names_and_other_origins_are_refused(self):
        daemon = self.start()
        self.assertEqual(daemon.call("GET", "/apps", headers={"Host": "evil.example"})[0], 421)
        self.assertEqual(daemon.call("GET", "/", headers={"Host": "evil.example"})[0], 421)
        status, answer = daemon.call("POST", "/apps", {"name": "a", "template": COUNTER},
                                     headers={"Origin": "http://evil.example"})
        self.assertEqual((status, answer["code"]), (403, "PERMISSION_DENIED"))
        self.assertEqual(daemon.get("/apps")["apps"], [])

    def test_the_console_comes_with_headers_that_let_no_foreign_script_run(self):
        daemon = self.start()
        status, page = daemon.call("GET", "/")
        self.assertEqual(status, 200)
        self.assertIn(b"<html", page)
        self.assertIn("script-src 'self'", daemon.headers["Content-Security-Policy"])
        self.assertEqual(daemon.headers["Cache-Control"], "no-cache")
        etag = daemon.headers["ETag"]
        self.assertEqual(daemon.call("GET", "/", headers={"If-None-Match": etag})[0], 304)

    def test_a_refused_template_leaves_nothing(self):
        daemon = self.start()
        for template, word in (("services:\n  a:\n    imag: x\n", "imag"),
                               ("services:\n  a:\n    image: no/such:image\n", "no/such:image"),
                               ("services: [", "template:1")):
            status, answer = daemon.call("POST", "/apps", {"name": "a", "template": template})
            self.assertGreaterEqual(status, 400)
            self.assertIn(word, answer["message"])
        self.assertEqual(daemon.get("/apps")["apps"], [])
        self.assertEqual(daemon.call("GET", "/apps/a")[0], 404)

    def test_a_run_is_known_with_the_version_that_it_made(self):
        first = self.start()
        status, answer = first.call("POST", "/apps", {"name": "train", "template": TRAINER,
                                                      "create_volumes": True})
        self.assertEqual(status, 201, answer)
        runs = wait_for(lambda: [run for run in first.get("/apps/train/runs")["runs"]
                                 if run["state"] == "completed"], "the run to complete")
        self.assertEqual((runs[0]["number"], runs[0]["exit_code"]), (1, 0))
        self.assertEqual([(v["number"], v["complete"]) for v in runs[0]["model"]["versions"]],
                         [(1, True)])
        self.assertEqual(first.call("PUT", "/runs/train/1", {"note": "kept"})[0], 200)
        first.kill()
        second = self.start()
        second.call("POST", "/apps/train/start", {})
        wait_for(lambda: [(run["number"], run["state"], run["note"])
                          for run in second.get("/runs?app=train")["runs"]]
                 == [(2, "completed", ""), (1, "completed", "kept")], "the second run")
        versions = second.get("/models")["models"][0]["versions"]
        self.assertEqual([version["run"] for version in versions], [{"app": "train", "number": 2}])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--source")
    parser.add_argument("--build", required=True)
    options, rest = parser.parse_known_args()
    TAKT = str(pathlib.Path(options.build) / "bin" / "takt")
    unittest.main(argv=[sys.argv[0], *rest], verbosity=1)
