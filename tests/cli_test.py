"""The command line, against nothing, against something that is no daemon, and against the daemon."""

import argparse
import contextlib
import http.server
import json
import os
import pathlib
import pty
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
TAKT = None
DEADLINE_SECONDS = 60


def takt(*arguments, env=None, **options):
    return subprocess.run([TAKT, *map(str, arguments)], capture_output=True, text=True,
                          timeout=DEADLINE_SECONDS, env={**os.environ, **(env or {})},
                          stdin=subprocess.DEVNULL, **options)


def fake_server(test, status, body, seen=None):
    """Address of an HTTP server that answers everything alike."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if seen is not None:
                seen.append((self.path, dict(self.headers)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    test.addCleanup(server.server_close)
    test.addCleanup(server.shutdown)
    return f"127.0.0.1:{server.server_port}"


class WithoutDaemon(unittest.TestCase):
    def test_where_no_daemon_answers_it_says_what_to_do(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{unused.getsockname()[1]}"
            for arguments in (["apps"], ["show", "a"], ["logs", "a", "-f"], ["volume", "ls"],
                              ["rm", "a", "--yes"], ["events", "-f"]):
                done = takt(*arguments, env={"TAKT_HOST": address})
                self.assertEqual(done.returncode, 5, done.stderr)
                self.assertIn(f"no daemon answers at {address}", done.stderr)
                self.assertIn("takt daemon", done.stderr)
                self.assertEqual(done.stdout, "")

    def test_an_address_that_is_none_is_refused(self):
        for host in ("", "nowhere:port", "https://x", "127.0.0.1:99999", "http://a/b"):
            done = takt("apps", "--host", host)
            self.assertEqual(done.returncode, 2, (host, done.stderr))
            self.assertIn("HOST:PORT", done.stderr)

    def test_something_else_at_the_address_is_told_apart(self):
        for status, body in ((200, b"<html>"), (404, b"{}"), (500, b'{"code": 5}'), (200, b"[]"),
                             (200, b'{"apps": 7}')):
            done = takt("apps", "--host", fake_server(self, status, body))
            self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
            self.assertRegex(done.stderr, "is it a takt daemon|of the same version")

    def test_the_daemon_s_refusal_becomes_message_and_exit_code(self):
        for code, status, expected in (("NOT_FOUND", 404, 3), ("INVALID_ARGUMENT", 400, 2),
                                       ("ALREADY_EXISTS", 409, 4), ("UNAVAILABLE", 503, 5),
                                       ("INTERNAL", 500, 1)):
            body = f'{{"code": "{code}", "message": "why not", "details": {{}}}}'.encode()
            done = takt("show", "a", "--host", fake_server(self, status, body))
            self.assertEqual((done.returncode, done.stderr), (expected, "takt: why not\n"))

    def test_the_token_of_a_file_is_sent_and_a_missing_one_asked_for(self):
        seen = []
        address = fake_server(self, 200, b'{"apps": []}', seen)
        with tempfile.NamedTemporaryFile("w") as token:
            token.write("secret\n")
            token.flush()
            done = takt("apps", "--host", address, "--token-file", token.name)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(seen[0][0], "/api/v1/apps")
        self.assertEqual(seen[0][1]["Authorization"], "Bearer secret")
        done = takt("apps", "--token-file", "/no/such/file")
        self.assertEqual(done.returncode, 3)
        self.assertIn("--token-file: ", done.stderr)
        body = b'{"code": "UNAUTHENTICATED", "message": "no token", "details": {}}'
        done = takt("apps", "--host", fake_server(self, 401, body))
        self.assertIn("--token-file", done.stderr)

    def test_wrong_usage_is_2_and_help_is_0(self):
        for arguments in ([], ["aps"], ["show"], ["up"], ["logs", "a", "--tail", "-1"],
                          ["logs", "a", "--tail", "10001"], ["config", "a", "--wait", "never"],
                          ["completion", "tcsh"], ["rollback", "a", "0"]):
            self.assertEqual(takt(*arguments).returncode, 2, arguments)
        for command in ([], ["up"], ["config"], ["volume", "create"], ["logs"]):
            done = takt(*command, "--help")
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertIn("Usage: takt " + " ".join(command), done.stdout)


class Daemon:
    """A daemon of its own on a free port, ended with all its apps."""

    def __init__(self, test, *arguments):
        self.home = pathlib.Path(tempfile.mkdtemp())
        test.addCleanup(shutil.rmtree, self.home, ignore_errors=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        with open(self.home / "log", "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [TAKT, "daemon", "--data-dir", self.home / "data", "--listen", self.address,
                 *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        test.addCleanup(self.end)
        wait_for(lambda: self("status").returncode == 0 or self.process.poll() is not None)
        test.assertIsNone(self.process.poll(), (self.home / "log").read_text())

    def __call__(self, *arguments, **options):
        return takt(*arguments, env={"TAKT_HOST": self.address}, **options)

    def end(self):
        if self.process.poll() is None:
            for app in self("apps", "--names").stdout.split():
                self("rm", app, "--yes")
            wait_for(lambda: not self("apps", "--names").stdout)
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(DEADLINE_SECONDS)


def wait_for(ready):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not ready():
        if time.monotonic() > deadline:
            raise AssertionError("not in time")
        time.sleep(0.05)


# What differs from run to run, and what stands for it in the transcript.
CHANGING = (
    (r"/tmp/tmp\w+", "HOME"),
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
    (r"\b\d+s\b", "AGE"),
    (r"\b[\d.]+ [KM]iB\b", "SIZE"),
    (r"\b(\w+\.\w+\.\d+)\.[a-z0-9]{8}\b", r"\1.ID"),
    (r" after [\d.]+ s\b", ""),
    (r" {2,}", "  "),
    (r"(?<=  )-(?=  )", "AGE"),  # of what ended before anybody saw it run
)


class Session(unittest.TestCase):
    """tests/cli/session.txt: commands and what they answer, one after another on one daemon. Written
    anew with TAKT_UPDATE_GOLDENS=1, to be read as a diff."""

    def test_the_transcript(self):
        path = HERE / "cli/session.txt"
        expected = path.read_text(encoding="utf-8")
        daemon = Daemon(self)
        got = []
        for line in expected.splitlines():
            if not line.startswith("$ "):
                continue
            arguments = shlex.split(line)[2:]
            done = daemon(*arguments, cwd=HERE / "cli")
            text = done.stdout + done.stderr
            for pattern, stand_in in CHANGING:
                text = re.sub(pattern, stand_in, text)
            got.append(f"{line}\n{text}[{done.returncode}]\n")
        got = "\n".join(got)
        if os.environ.get("TAKT_UPDATE_GOLDENS") == "1":
            path.write_text(got, encoding="utf-8")
        self.maxDiff = None
        self.assertEqual(got, expected)


class WithDaemon(unittest.TestCase):
    def test_json_is_what_the_api_answers(self):
        daemon = Daemon(self)
        done = daemon("up", HERE / "cli/hello.yml", "--json", "--wait", "running")
        self.assertEqual(done.returncode, 0, done.stderr)
        app = json.loads(done.stdout)
        self.assertEqual((app["name"], app["state"], app["revision"]["number"]), ("hello", "running", 1))
        (listed,) = json.loads(daemon("apps", "--json").stdout)["apps"]
        self.assertEqual(listed["name"], "hello")
        self.assertEqual(json.loads(daemon("show", "hello", "--json").stdout)["name"], "hello")
        lines = [json.loads(line) for line in daemon("logs", "hello", "--json").stdout.splitlines()]
        self.assertEqual(sorted(line["text"] for line in lines), ["hello world", "once"])
        events = [json.loads(e) for e in daemon("events", "hello", "--json").stdout.splitlines()]
        self.assertIn("created", [event["kind"] for event in events])
        self.assertIn("takt/host", json.dumps(json.loads(daemon("images", "--json").stdout)))

    def test_logs_and_events_follow_what_comes(self):
        daemon = Daemon(self)
        daemon("up", HERE / "cli/hello.yml", "--wait", "running")
        followers = {}
        for command in ("logs", "events"):
            process = subprocess.Popen([TAKT, command, "hello", "-f", "--host", daemon.address],
                                       stdout=subprocess.PIPE, text=True)
            self.addCleanup(process.stdout.close)
            self.addCleanup(process.wait)
            self.addCleanup(process.kill)
            followers[command] = process
        self.assertIn("hello world", read_until(followers["logs"], "hello world"))
        daemon("config", "hello", "--set", "WHO=later", "--yes")
        self.assertIn("greeter | hello later", read_until(followers["logs"], "later"))
        self.assertIn("configured", read_until(followers["events"], "configured"))

    def test_endpoints_say_where_a_service_is(self):
        daemon = Daemon(self)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        up = daemon("up", HERE / "cli/published.yml", "--set", f"PORT={port}", "--wait", "running")
        self.assertEqual(up.returncode, 0, up.stderr)
        self.assertIn(f"web at 127.0.0.1:{port}", up.stdout)
        self.assertRegex(daemon("endpoints").stdout, rf"127.0.0.1:{port} +tcp +published +web")
        clash = daemon("up", HERE / "cli/published.yml", "--name", "other", "--set", f"PORT={port}")
        self.assertEqual(clash.returncode, 4)
        self.assertIn(f"port {port} is taken by app published", clash.stderr)
        self.assertEqual(daemon("apps", "--names").stdout, "published\n")

    def test_a_person_is_asked_and_no_means_no(self):
        daemon = Daemon(self)
        daemon("up", HERE / "cli/hello.yml", "--wait", "running")
        for answer, code, revision in (("n", 1, 1), ("", 1, 1), ("y", 0, 2)):
            output, status = on_terminal(
                [TAKT, "config", "hello", "--set", "WHO=all", "--host", daemon.address], answer + "\n")
            self.assertEqual(status, code, output)
            self.assertIn("world", output)
            self.assertIn("Go ahead? [y/N]", output)
            self.assertIn("\x1b[32m+ values.WHO", output)
            shown = json.loads(daemon("show", "hello", "--json").stdout)
            self.assertEqual(shown["revision"]["number"], revision)
        output, status = on_terminal([TAKT, "up", HERE / "cli/stored.yml", "--host", daemon.address],
                                     "y\n")
        self.assertEqual(status, 0, output)
        self.assertIn("Create volume data? [y/N]", output)
        self.assertIn("data", daemon("volume", "ls", "--names").stdout)

    def test_with_a_token_only_those_who_have_it_come_in(self):
        with tempfile.NamedTemporaryFile("w") as token:
            token.write("a-secret-of-some-length\n")
            token.flush()
            os.environ["TAKT_TOKEN_FILE"] = token.name
            self.addCleanup(os.environ.pop, "TAKT_TOKEN_FILE", None)
            daemon = Daemon(self, "--token-file", token.name)
            self.assertEqual(daemon("apps").returncode, 0)
            refused = takt("apps", env={"TAKT_HOST": daemon.address, "TAKT_TOKEN_FILE": ""})
            self.assertNotEqual(refused.returncode, 0)
            self.assertIn("token", refused.stderr)
            daemon.end()


def read_until(process, words):
    """What a process prints, up to the line with the words."""
    text = ""
    timer = threading.Timer(DEADLINE_SECONDS, process.kill)
    timer.start()
    for line in process.stdout:
        text += line
        if words in line:
            break
    timer.cancel()
    return text


def on_terminal(command, typed):
    """Output and exit status of a command on a terminal at which `typed` is typed."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.pop("NO_COLOR", None)
        os.environ["TERM"] = "xterm"
        os.execv(command[0], [str(c) for c in command])
    os.write(terminal, typed.encode())
    output = b""
    with contextlib.suppress(OSError):
        while piece := os.read(terminal, 4096):
            output += piece
    os.close(terminal)
    return output.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Completion(unittest.TestCase):
    def bash(self, *words):
        """What bash offers for the last word."""
        script = (f"source <({TAKT} completion bash); takt() {{ [ \"$1\" = apps ] && echo 'mnist web'"
                  " || echo models; }; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _takt; "
                  "printf '%s\\n' \"${COMPREPLY[@]}\"")
        done = subprocess.run(["bash", "-c", script, "bash", "takt", *words], capture_output=True,
                              text=True, timeout=DEADLINE_SECONDS, cwd="/usr")
        self.assertEqual(done.stderr, "")
        return done.stdout.split()

    def test_bash_completes_commands_options_files_and_names(self):
        self.assertEqual(self.bash("sh"), ["show"])
        self.assertEqual(self.bash("ro"), ["rollback"])
        self.assertEqual(self.bash("volume", ""), ["create", "ls", "rm", "-h", "--help"])
        self.assertEqual(self.bash("up", "--su"), ["--subdirectory"])
        self.assertEqual(self.bash("volume", "create", "--dev"), ["--device"])
        self.assertEqual(self.bash("show", ""), ["mnist", "web"])
        self.assertEqual(self.bash("config", "m"), ["mnist"])
        self.assertEqual(self.bash("volume", "rm", "mo"), ["models"])
        self.assertEqual(self.bash("up", "sha"), ["share"])
        self.assertEqual(self.bash("config", "mnist", "--template", "sha"), ["share"])
        self.assertEqual(self.bash("apps", "--host", ""), [])

    def test_the_scripts_of_other_shells_know_every_command(self):
        commands = set(self.bash(""))
        self.assertLessEqual({"check", "up", "apps", "volume", "completion"}, commands)
        for shell in ("zsh", "fish"):
            script = takt("completion", shell).stdout
            for command in commands - {"-h", "--help", "--version"}:
                self.assertRegex(script, rf"\b{command}\b")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--source")
    parser.add_argument("--build", type=pathlib.Path, required=True)
    options, rest = parser.parse_known_args()
    TAKT = options.build.resolve() / "bin/takt"
    unittest.main(argv=[sys.argv[0], *rest])
