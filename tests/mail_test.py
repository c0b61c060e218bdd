"""Alerts by e-mail, with a real SMTP server: what is kept over kill -9, told once, and refused."""

import argparse
import asyncio
import email
import email.policy
import json
import pathlib
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
import unittest

from aiosmtpd.smtp import SMTP, AuthResult

from daemon_harness import Daemon, wait_for

TAKT = None
PASSWORD = "hunter2"


class Mailbox:
    """An SMTP server that asks for STARTTLS (or TLS from the start) and a password."""

    def __init__(self, context, starttls=True, port=0):
        self.messages = []
        options = {"authenticator": self.authenticate}
        if context is not None:
            options["auth_required"] = True
            if starttls:
                options.update(tls_context=context, require_starttls=True)
            else:
                options["auth_require_tls"] = False  # it is inside TLS already
        self.loop = asyncio.new_event_loop()
        self.server = self.loop.run_until_complete(self.loop.create_server(
            lambda: SMTP(self, loop=self.loop, **options), "127.0.0.1", port,
            ssl=None if starttls else context))
        self.port = self.server.sockets[0].getsockname()[1]
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def authenticate(self, server, session, envelope, mechanism, data):
        good = data.login == b"takt" and data.password == PASSWORD.encode()
        return AuthResult(success=good, handled=False)

    async def handle_DATA(self, server, session, envelope):
        self.messages.append((envelope.mail_from, envelope.rcpt_tos,
                              email.message_from_bytes(envelope.content,
                                                       policy=email.policy.default)))
        return "250 OK"

    def stop(self):
        if self.thread is None:
            return
        self.loop.call_soon_threadsafe(self.server.close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.thread = None


class MailTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory(prefix="takt-mail-test-")
        cls.addClassCleanup(holder.cleanup)
        cls.directory = pathlib.Path(holder.name)
        cls.certificate = cls.directory / "cert.pem"
        key = cls.directory / "key.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                        "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
                        "-keyout", str(key), "-out", str(cls.certificate)],
                       check=True, capture_output=True)
        cls.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        cls.context.load_cert_chain(cls.certificate, key)

    def setUp(self):
        self.data = self.directory / self.id().rsplit(".", 1)[-1]
        self.start()
        self.addCleanup(lambda: self.daemon.kill())

    def start(self):
        self.daemon = Daemon(TAKT, self.data)

    def mailbox(self, *arguments, **options):
        box = Mailbox(*arguments, **options)
        self.addCleanup(lambda: box.stop())
        return box

    def receiver(self, box, **changes):
        return {"kind": "email", "server": f"127.0.0.1:{box.port}", "security": "starttls",
                "user": "takt", "password": PASSWORD, "from": "takt@example.com",
                "to": ["ops@example.com", "me@example.com"], "language": "zh",
                "ca_file": str(self.certificate), **changes}

    def test_what_was_set_up_survives_kill_9_and_is_told_once(self):
        box = self.mailbox(self.context)
        status, answer = self.daemon.call("PUT", "/alerts/receivers/ops", self.receiver(box))
        self.assertEqual(status, 200, answer)
        self.daemon.call("POST", "/alerts/silences", {"rule": "disk_almost_full", "minutes": 60})
        self.daemon.call("PUT", "/alerts/rules/cores", {
            "metric": "takt_node_cores", "function": "last", "threshold": 0, "for_seconds": 0,
            "summary": "{value} cores", "summary_zh": "共 {value} 个核"})
        self.daemon.kill()
        self.start()
        status, answer = self.daemon.call("GET", "/alerts")
        self.assertIn("cores", [rule["name"] for rule in answer["rules"]])
        self.assertEqual([s["rule"] for s in answer["silences"]], ["disk_almost_full"])
        self.assertNotIn(PASSWORD, json.dumps(self.daemon.call("GET", "/alerts/receivers")))
        wait_for(lambda: box.messages, "the mail")
        sender, recipients, message = box.messages[0]
        self.assertEqual(sender, "takt@example.com")
        self.assertEqual(recipients, ["ops@example.com", "me@example.com"])
        self.assertRegex(message["Subject"], r"Takt: \[警告\] 共 \d+ 个核")
        self.assertRegex(message.get_content(), r"\[警告\] 共 \d+ 个核\s+cores, 20")
        wait_for(lambda: self.daemon.call("GET", "/alerts/receivers")[1]["receivers"][0]["delivered"] == 1,
                 "the delivery to be counted")

        # It fires still, and is not told again; that it is over is.
        self.daemon.kill()
        self.start()
        wait_for(lambda: [a for a in self.daemon.call("GET", "/alerts")[1]["alerts"]
                          if a["rule"] == "cores" and a["state"] == "firing"], "the alert")
        self.daemon.call("DELETE", "/alerts/rules/cores")
        wait_for(lambda: len(box.messages) > 1, "the second mail")
        self.assertEqual(["[已恢复]" in m.get_content() for _, _, m in box.messages], [False, True])
        mode = stat.S_IMODE((self.data / "alerts.db").stat().st_mode)
        self.assertEqual(mode, 0o600)

    def test_a_mail_waits_over_kill_9_for_a_server_that_is_down(self):
        box = self.mailbox(self.context)
        box.stop()
        self.daemon.call("PUT", "/alerts/receivers/ops", self.receiver(box))
        self.daemon.call("PUT", "/alerts/rules/cores", {
            "metric": "takt_node_cores", "threshold": 0, "for_seconds": 0, "summary": "cores"})
        waiting = wait_for(lambda: [r for r in self.daemon.call("GET", "/alerts/receivers")[1]["receivers"]
                                    if r["waiting"] == 1 and r["last_error"]], "the failure")
        self.assertIn(f"127.0.0.1:{box.port}", waiting[0]["last_error"])
        self.daemon.kill()
        again = self.mailbox(self.context, port=box.port)
        self.start()
        wait_for(lambda: again.messages, "the mail")
        self.assertIn("cores", again.messages[0][2]["Subject"])

    def test_a_test_says_what_is_wrong(self):
        box = self.mailbox(self.context)
        tls = self.mailbox(self.context, starttls=False)
        plain = self.mailbox(None)
        for changes, expected, words in [
                ({}, 200, ""),
                ({"server": f"127.0.0.1:{tls.port}", "security": "tls"}, 200, ""),
                ({"server": f"127.0.0.1:{plain.port}", "security": "none", "user": "",
                  "password": ""}, 200, ""),
                ({"password": "wrong"}, 400, "denied"),
                # A server that cannot encrypt gets neither the password nor the mail.
                ({"server": f"127.0.0.1:{plain.port}"}, 400, "STARTTLS"),
                # A certificate that nobody vouches for.
                ({"ca_file": ""}, 400, "certificate"),
                ({"server": "127.0.0.1:1"}, 503, "127.0.0.1:1"),
                ({"to": []}, 400, "to: expected"),
        ]:
            with self.subTest(changes):
                got, answer = self.daemon.call("POST", "/alerts/receivers/x/test",
                                        self.receiver(box, **changes))
                self.assertEqual(got, expected, answer)
                self.assertIn(words, json.dumps(answer))
        self.assertEqual([len(b.messages) for b in (box, tls, plain)], [1, 1, 1])
        self.assertIn("测试", box.messages[0][2]["Subject"])
        self.assertEqual(self.daemon.call("GET", "/alerts/receivers")[1]["receivers"], [])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--source")
    parser.add_argument("--build", required=True)
    options, rest = parser.parse_known_args()
    TAKT = str(pathlib.Path(options.build).resolve() / "bin" / "takt")
    unittest.main(argv=[sys.argv[0], *rest], verbosity=1)
