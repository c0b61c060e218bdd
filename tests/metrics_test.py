"""Monitoring of a whole daemon: GPUs, targets that misbehave, services that scale."""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request

TAKT = None
NVML = None
DEADLINE_SECONDS = 120


def wait_for(condition, what):
    end = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"gave up waiting for {what}")


class MetricsTest(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory(prefix="takt-metrics-test-")
        self.addCleanup(holder.cleanup)
        self.directory = pathlib.Path(holder.name)

    def start(self, *arguments):
        daemon = subprocess.Popen(
            [TAKT, "daemon", "--data-dir", str(self.directory / "data"), "--listen", "127.0.0.1:0",
             *arguments], stdout=subprocess.PIPE, text=True,
            env={"TAKT_FAKE_NVML": str(self.directory / "nvml"), "PATH": "/usr/bin:/bin"})
        self.address = next(line.strip() for line in daemon.stdout if line.startswith("http://"))

        def end():
            for app in self.get("/apps")["apps"]:
                self.call("DELETE", f"/apps/{app['name']}")
            wait_for(lambda: not self.get("/apps")["apps"], "the apps to be gone")
            daemon.terminate()
            daemon.wait()
            daemon.stdout.close()
        self.addCleanup(end)

    def call(self, method, path, body=None):
        request = urllib.request.Request(
            f"{self.address}/api/v1{path}", method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def get(self, path):
        status, answer = self.call("GET", path)
        self.assertEqual(status, 200, answer)
        return answer

    def create(self, name, template):
        status, answer = self.call("POST", "/apps", {"name": name, "template": template})
        self.assertEqual(status, 201, answer)

    def newest(self, name, match=""):
        return self.get("/metrics/newest?" + urllib.parse.urlencode({"name": name, "match": match}))[
            "series"]

    def test_gpus_and_who_uses_their_memory(self):
        script = self.directory / "nvml"
        script.write_text("gpu NVIDIA-T4 37 1000 16000 61 70500\n")
        self.start("--nvml", NVML)
        # The program is a grandchild of the instance's first process, as a framework's worker is.
        self.create("trainer", """services:
  main:
    image: takt/host
    command: ["sh", "-c", "sh -c 'sleep 100000 & wait' & wait"]
""")
        [gpu] = wait_for(lambda: self.newest("takt_gpu_utilization_ratio"), "the GPU")
        self.assertEqual(gpu["labels"], {"gpu": "0", "product": "NVIDIA-T4"})
        self.assertEqual(gpu["value"], 0.37)

        def sleeper():
            found = subprocess.run(["pgrep", "-f", "^sleep 100000$"], capture_output=True, text=True)
            return found.stdout.split()
        pid = wait_for(sleeper, "the program")[-1]
        script.write_text("gpu NVIDIA-T4 37 1000 16000 61 70500\n"
                          f"process 0 {pid} 800\nprocess 0 1 5\n")
        [memory] = wait_for(lambda: self.newest("takt_instance_gpu_memory_bytes"), "its memory")
        labels = memory["labels"]
        self.assertEqual((labels["app"], labels["service"], labels["gpu"]), ("trainer", "main", "0"))
        self.assertEqual(memory["value"], 800)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--source")
    parser.add_argument("--build", required=True)
    options, rest = parser.parse_known_args()
    build = pathlib.Path(options.build).resolve()
    TAKT = str(build / "bin" / "takt")
    NVML = str(build / "src" / "metrics" / "libfake_nvml.so")
    unittest.main(argv=[sys.argv[0], *rest], verbosity=1)
