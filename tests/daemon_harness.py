"""A daemon as a process, for the tests that ask it over its API."""
import http.client
import json
import signal
import socket
import subprocess
import time

DEADLINE_SECONDS = 120


def wait_for(condition, what):
    """The first true value of `condition`."""
    end = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"gave up waiting for {what}")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Daemon:
    """Listens on a free port: `address` is "127.0.0.1:PORT"."""

    def __init__(self, takt, data_dir, *arguments, token=None, env=None):
        self.token = token
        self.process = subprocess.Popen(
            [takt, "daemon", "--data-dir", str(data_dir), "--listen", "127.0.0.1:0", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        self.address = None
        for line in self.process.stdout:
            if line.startswith("http://"):
                self.address = line.strip().removeprefix("http://")
                break
        if self.address is None:
            raise AssertionError("no address: " + self.process.stderr.read())

    def call(self, method, path, body=None, headers=None):
        """(status, parsed answer)"""
        connection = http.client.HTTPConnection(self.address, timeout=DEADLINE_SECONDS)
        headers = {"Content-Type": "application/json", **(headers or {})}
        if self.token:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        connection.request(method, path if path.startswith("/api") or path == "/"
                           else "/api/v1" + path,
                           None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        self.headers = dict(answer.getheaders())
        if answer.getheader("Content-Type", "").startswith("application/json") and text:
            return answer.status, json.loads(text)
        return answer.status, text

    def get(self, path):
        status, answer = self.call("GET", path)
        assert status == 200, (status, answer)
        return answer

    def create(self, name, template):
        status, answer = self.call("POST", "/apps", {"name": name, "template": template})
        assert status == 201, answer

    def remove_apps(self):
        for app in self.get("/apps")["apps"]:
            self.call("DELETE", f"/apps/{app['name']}")
        wait_for(lambda: not self.get("/apps")["apps"], "every app to go")

    def kill(self):
        self.process.kill()
        self.process.communicate()

    def end(self, number=signal.SIGTERM):
        """Exit status and what it said."""
        self.process.send_signal(number)
        _, stderr = self.process.communicate(timeout=DEADLINE_SECONDS)
        return self.process.returncode, stderr
