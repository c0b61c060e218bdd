"""The command line, against nothing, against something that is no daemon, and against the daemon."""

import argparse
import http.server
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

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
