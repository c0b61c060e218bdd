"""The whole line, as a user sees it: the demo; and the user's three templates, unchanged."""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEMPLATES = ROOT / "tests/user_templates"
BUILD = None
LIMIT_SECONDS = 240


def processes_naming(path):
    """Command lines of running processes that mention a directory."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if str(path) in command and int(entry.name) != os.getpid():
                    found.append(command)
    return found


def digits():
    """Directory with real digits: the one that is set, the one beside the project, or fetched ones."""
    beside = ROOT.parent / "shared/mnist"
    if "TAKT_MNIST_DIR" not in os.environ and (beside / "train-images-idx3-ubyte.gz").is_file():
        return str(beside)
    cache = BUILD / "tests/digits"
    done = subprocess.run([sys.executable, ROOT / "examples/mnist/mnist_data.py", cache],
                          stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)["directory"]


def original(directory):
    """Whether these are the 70,000 of the original, whose error rates are known."""
    sys.path.insert(0, str(ROOT / "examples/mnist"))
    import mnist_data
    return mnist_data.read_idx(directory, "train-labels-idx1-ubyte")[0] == (60000,)


class Demo(unittest.TestCase):
    def demo(self, home, *arguments, **env):
        return subprocess.run(
            [sys.executable, ROOT / "scripts/demo.py", "--build", BUILD, "--home", home, *arguments],
            capture_output=True, text=True, timeout=LIMIT_SECONDS,
            env={**os.environ, "TAKT_MNIST_DIR": digits(), **env})

    def test_trains_serves_tests_and_improves_and_leaves_nothing_behind(self):
        home = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, home)
        self.addCleanup(self.demo, home, "stop")
        done = self.demo(home)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        report = json.loads((home / "report.json").read_text())
        for link in report["links"].values():
            self.assertIn(link, done.stdout)
        # What it made, in the console.
        console = subprocess.run(["node", ROOT / "tests/console/demo.mjs", "--build", BUILD, "--report",
                                  home / "report.json"], capture_output=True, text=True, timeout=LIMIT_SECONDS)
        self.assertEqual(console.returncode, 0, console.stdout + console.stderr)
        self.assertEqual(self.demo(home, "stop").returncode, 0)
        self.assertEqual(report["dataset"], "mnist")
        rates = {v["version"]: 100 * v["error_rate"] for v in report["versions"]}
        self.assertEqual(sorted(rates), [1, 2])
        self.assertLess(rates[2], rates[1])
        if original(digits()):
            self.assertAlmostEqual(rates[1], 13, delta=3)
            self.assertAlmostEqual(rates[2], 8.5, delta=1)
        self.assertGreater(report["switch"]["sent"], 100)
        self.assertEqual(report["switch"]["failed"], 0)
        # What the console's charts show, by model and version.
        self.assertEqual(sorted(report["figures"]), ["1", "2"])
        for figures in report["figures"].values():
            self.assertGreaterEqual(figures["requests"], 10_000)
            self.assertEqual(figures["failed"], 0)
            self.assertGreater(figures["p99_seconds"], 0)
        self.assertGreater(len(report["steps"]), 5)
        for step in report["steps"]:
            self.assertEqual(sorted(step), ["name", "seconds"])
            self.assertIn(step["name"], done.stdout)
        self.assertRegex(done.stdout, r"console at http://127\.0\.0\.1:\d+")
        self.assertRegex(done.stdout, r"roll back +.* config mnist-serve --set PIN_VERSION=1")
        self.assertEqual(os.listdir(home), ["report.json"])
        self.assertEqual(processes_naming(home), [])

    def test_without_the_programs_it_says_what_makes_them(self):
        with tempfile.TemporaryDirectory() as empty:
            done = subprocess.run([sys.executable, ROOT / "scripts/demo.py", "--build", empty],
                                  capture_output=True, text=True, timeout=LIMIT_SECONDS)
        self.assertEqual(done.returncode, 1)
        self.assertIn("make build", done.stderr)


class UserTemplates(unittest.TestCase):
    """Image names, letter case and the shared volume as the user has them."""

    def setUp(self):
        self.home = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.home)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        log = open(self.home / "daemon.log", "w", encoding="utf-8")
        self.addCleanup(log.close)
        self.daemon = subprocess.Popen(
            [BUILD / "bin/takt", "daemon", "--data-dir", self.home / "data", "--listen", self.address],
            stdout=log, stderr=log, env={**os.environ, "TAKT_MNIST_DIR": digits()})
        self.addCleanup(self.end_daemon)
        self.wait_for(lambda: self.takt("status", check=False).returncode == 0)

    def end_daemon(self):
        for app in self.takt("apps", "--names", check=False).stdout.split():
            self.takt("rm", app, "--yes", check=False)
        with contextlib.suppress(AssertionError):
            self.wait_for(lambda: not self.takt("apps", "--names", check=False).stdout.split())
        self.daemon.send_signal(signal.SIGTERM)
        self.daemon.wait(timeout=LIMIT_SECONDS)

    def takt(self, *arguments, check=True):
        done = subprocess.run([BUILD / "bin/takt", *map(str, arguments), "--host", self.address],
                              capture_output=True, text=True, stdin=subprocess.DEVNULL,
                              timeout=LIMIT_SECONDS)
        if check:
            self.assertEqual(done.returncode, 0, f"{arguments}: {done.stderr}\n{done.stdout}")
        return done

    def wait_for(self, ready):
        deadline = time.monotonic() + LIMIT_SECONDS
        while not ready():
            self.assertLess(time.monotonic(), deadline, "not in time")
            time.sleep(0.1)

    def test_they_deploy_unchanged_and_work_together(self):
        with socket.socket() as probe:
            try:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("0.0.0.0", 9000))
            except OSError:
                self.skipTest("port 9000, which the user's template publishes, is taken")
        refused = self.takt("up", TEMPLATES / "training.yml", "--set", "VERSION=1", "--set",
                            "TRAIN_STEPS=100", check=False)
        self.assertEqual(refused.returncode, 4, refused.stderr)
        self.assertIn("no volume mnist_model", refused.stderr)
        self.takt("volume", "create", "mnist_model")
        self.takt("up", TEMPLATES / "training.yml", "--set", "VERSION=1", "--set", "TRAIN_STEPS=100",
                  "--wait", "completed")
        # Trainer and server mount the same volume at different places: until the server is told
        # that its base path is a directory of the volume, it finds no version and says so.
        self.takt("up", TEMPLATES / "serving.yml")
        self.wait_for(lambda: "did you mean that?" in self.takt("show", "serving").stdout)
        self.assertIn("found 1 under /mnist_model/mnist_model", self.takt("show", "serving").stdout)
        self.takt("config", "serving", "--subdirectory", "mnist_model=mnist_model", "--yes",
                  "--wait", "running")
        self.takt("up", TEMPLATES / "client.yml", "--set", "NUM_TESTS=1000", "--set",
                  "SERVER=127.0.0.1:9000", "--set", "CONCURRENCY=8", "--wait", "completed")
        log = self.takt("logs", "client").stdout
        rate = float(re.search(r"Inference error rate: ([\d.]+)%", log)[1])
        self.assertTrue(5 < rate < 25, log)
        self.assertIn("Sent 1000, failed 0", log)
        # Its template asks for no metrics, and publishes only the port for gRPC.
        self.wait_for(lambda: self.counted("serving") == {("mnist", "1", "OK"): 1000})

    def counted(self, app):
        """Requests that the daemon has seen a model server count, by model, version and code."""
        with urllib.request.urlopen(f"http://{self.address}/api/v1/metrics/newest?"
                                    f"name=takt_serving_requests_total&match=app={app}") as answer:
            return {tuple(one["labels"][name] for name in ("model", "version", "code")): one["value"]
                    for one in json.load(answer)["series"]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--source")
    parser.add_argument("--build", type=pathlib.Path, required=True)
    options, rest = parser.parse_known_args()
    BUILD = options.build.resolve()
    unittest.main(argv=[sys.argv[0], *rest])
