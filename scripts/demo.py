#!/usr/bin/env python3
"""The line from end to end on one machine: train a model, serve it, test it, change the
configuration, see the next version taken up without a failed request and the error fall.

    demo.py         runs it and leaves everything running (with DEMO_KEEP=0: stops all)
    demo.py stop    ends what a run left

Everything goes through the `takt` command line. What it makes lies in build/demo; report.json there
holds the figures.
"""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
VERSIONS = ((1, 100), (2, 2000))  # version, training steps
TESTS = 10_000
STEP_LIMIT_SECONDS = 300


class DemoError(Exception):
    """What went wrong, for people."""


def free_port(wanted):
    """`wanted` where nobody listens there, else any free one."""
    for port in (wanted, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return probe.getsockname()[1]
    raise DemoError("no free port on 127.0.0.1")


def wait_for(what, ready, seconds=STEP_LIMIT_SECONDS):
    """The first true answer of `ready`, which is asked ten times a second."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ready()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise DemoError(f"{what}: not within {seconds} s")
        time.sleep(0.1)


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    return True


class Takt:
    """The command line, talking to one daemon."""

    def __init__(self, program, address):
        self.program, self.address = program, address

    def run(self, *arguments):
        return subprocess.run([self.program, *map(str, arguments), "--host", self.address],
                              capture_output=True, text=True, stdin=subprocess.DEVNULL,
                              timeout=STEP_LIMIT_SECONDS + 30)

    def __call__(self, *arguments):
        done = self.run(*arguments)
        if done.returncode != 0:
            raise DemoError(f"takt {' '.join(map(str, arguments))}: {done.stderr.strip()}")
        return done.stdout

    def json(self, *arguments):
        return json.loads(self(*arguments, "--json"))

    def log(self, app):
        """The lines of an app's newest instance."""
        lines = [json.loads(line) for line in self("logs", app, "--tail=1000", "--json").splitlines()]
        return [line["text"] for line in lines if line["instance"] == lines[-1]["instance"]]


class Demo:
    def __init__(self, build, home):
        self.program = str(build / "bin/takt")
        self.example = build / "share/takt/examples/mnist"
        self.home = home
        self.data = home / "data"
        self.state_file = home / "state.json"
        self.report_file = home / "report.json"
        self.steps = []
        self.started = time.monotonic()
        self.takt = None

    # --- what is left of a run, and its end

    def state(self):
        try:
            return json.loads(self.state_file.read_text())
        except (OSError, ValueError):
            return None

    def stop(self):
        """Ends the daemon of an earlier run with all its apps. True when there was one."""
        state = self.state()
        if state is None:
            return False
        takt = Takt(self.program, state["address"])
        if not gone(state["pid"]):
            if takt.run("status").returncode == 0:
                apps = takt("apps", "--names").split()
                for app in apps:
                    takt("rm", app, "--yes")
                wait_for("the apps' end", lambda: not takt("apps", "--names").split(), 60)
            with contextlib.suppress(ProcessLookupError):
                os.kill(state["pid"], signal.SIGTERM)
            wait_for("the daemon's end", lambda: gone(state["pid"]), 60)
        self.state_file.unlink()
        shutil.rmtree(self.data, ignore_errors=True)
        for name in ("digits", "daemon.log"):
            path = self.home / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return True

    # --- the run

    @contextlib.contextmanager
    def step(self, name):
        """One step: a line when it is done, with its seconds."""
        begun = time.monotonic()
        if sys.stdout.isatty():
            print(f"         {name} ...", end="", flush=True)
        told = []
        yield told.append
        seconds = time.monotonic() - begun
        self.steps.append({"name": name, "seconds": round(seconds, 2)})
        start = "\r\x1b[K" if sys.stdout.isatty() else ""
        print(f"{start}{seconds:6.1f} s  {name}{': ' if told else ''}{'; '.join(told)}", flush=True)

    def start_daemon(self, digits):
        self.home.mkdir(parents=True, exist_ok=True)
        address = f"127.0.0.1:{free_port(8080)}"
        with open(self.home / "daemon.log", "w", encoding="utf-8") as log:
            daemon = subprocess.Popen(
                [self.program, "daemon", "--data-dir", str(self.data), "--listen", address],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "TAKT_MNIST_DIR": digits})
        self.takt = Takt(self.program, address)
        self.state_file.write_text(json.dumps({"pid": daemon.pid, "address": address}))

        def answers():
            if daemon.poll() is not None:
                raise DemoError(f"the daemon ended with {daemon.returncode}: "
                                f"{(self.home / 'daemon.log').read_text()[-2000:]}")
            return self.takt.run("status").returncode == 0
        wait_for("the daemon's first answer", answers, 30)
        return address

    def digits(self):
        """Directory with the digits, and where they came from."""
        done = subprocess.run([sys.executable, self.example / "mnist_data.py", self.home / "digits"],
                              stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise DemoError("there are no digits to train on (see above)")
        answer = json.loads(done.stdout)
        return answer["directory"], answer["source"]

    def train(self, version, steps):
        """Runs the trainer to its end: by a new app, or by a changed configuration."""
        settings = ["--set", f"VERSION={version}", "--set", f"TRAIN_STEPS={steps}",
                    "--wait", "completed", "--timeout", STEP_LIMIT_SECONDS]
        if version == 1:
            self.takt("up", self.example / "training.yml", "--name", "mnist-train", "--create-volumes",
                      *settings)
        else:
            self.takt("config", "mnist-train", "--yes", *settings)
        exported = [line for line in self.takt.log("mnist-train")
                    if re.match(rf"exported \S*/{version:08d} ", line)]
        if not exported:
            raise DemoError(f"the trainer's log does not say that {version:08d} was exported")
        return exported[0]

    def served_versions(self, rest_port):
        """Versions that the model server answers for."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{rest_port}/v1/models/mnist",
                                        timeout=5) as answer:
                states = json.load(answer)["model_version_status"]
        except (urllib.error.URLError, OSError):
            return []
        return [int(s["version"]) for s in states if s["state"] == "AVAILABLE"]

    def client(self, server):
        """Error rate of the served version, in (0, 1), and the client's other figures."""
        if "mnist-client" in self.takt("apps", "--names").split():
            self.takt("start", "mnist-client", "--wait", "completed")
        else:
            self.takt("up", self.example / "client.yml", "--name", "mnist-client", "--wait", "completed",
                      "--set", f"NUM_TESTS={TESTS}", "--set", f"SERVER={server}")
        log = "\n".join(self.takt.log("mnist-client"))
        rate = re.search(r"Inference error rate: ([\d.]+)%", log)
        speed = re.search(r"Requests: .*", log)
        version = re.findall(r"Answered by version (\d+)", log)
        if not rate or not speed or len(version) != 1:
            raise DemoError(f"the client's log has no result: {log}")
        return float(rate[1]) / 100, int(version[0]), speed[0]

    def api(self, path, query):
        with urllib.request.urlopen(f"http://{self.takt.address}/api/v1/{path}?"
                                    + urllib.parse.urlencode(query), timeout=30) as answer:
            return json.load(answer)

    def figures(self, app):
        """By version, what the daemon has measured of a model server: requests, failed ones, and
        the latency that 99 of 100 stay below. None until each of the versions has answered."""
        def quantile(version):
            now = time.time()
            span = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(t)) for t in (now - 600, now + 1)]
            series = self.api("metrics/query", {
                "name": "takt_serving_request_seconds_bucket", "quantile": 0.99,
                "match": f"app={app},version={version}", "from": span[0], "to": span[1],
                "step_ms": 600_000})["series"]
            values = [value for one in series for value in one["values"]]
            return max((v for v in values if v is not None), default=None)

        figures = {version: {"requests": 0, "failed": 0} for version, _ in VERSIONS}
        counts = {"name": "takt_serving_requests_total", "match": f"app={app},model=mnist"}
        for sample in self.api("metrics/newest", counts)["series"]:
            labels = sample["labels"]
            if (of := figures.get(int(labels["version"]))) is not None:
                of["requests"] += int(sample["value"])
                of["failed"] += int(sample["value"]) if labels["code"] != "OK" else 0
        for version, of in figures.items():
            of["p99_seconds"] = quantile(version)
        complete = all(of["requests"] >= TESTS and of["p99_seconds"] for of in figures.values())
        return figures if complete else None

    def ask(self, path, **query):
        """The daemon's answer to a GET of its API, for what has no command."""
        url = f"http://{self.takt.address}/api/v1{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)

    def points_on_the_chart(self, version):
        """How many points the serving app's chart of requests has of a version."""
        now = datetime.datetime.now(datetime.timezone.utc)
        answer = self.ask("/metrics/query", name="takt_serving_requests_total", function="rate",
                          aggregate="sum", by="version", match="app=mnist-serve",
                          **{"from": (now - datetime.timedelta(minutes=5)).isoformat(timespec="seconds"),
                             "to": now.isoformat(timespec="seconds"), "step_ms": 5000})
        return sum(value is not None and value > 0 for series in answer["series"]
                   if series["labels"].get("version") == str(version) for value in series["values"])

    def answered_by_asker(self):
        """How many answers the client that keeps asking has had so far."""
        lines = [re.match(r"(\d+) answered", line) for line in self.takt.log("mnist-asker")]
        return max((int(match[1]) for match in lines if match), default=0)

    def run(self):
        if self.stop():
            print("ended an earlier demo")
        with self.step("digits") as tell:
            digits, source = self.digits()
            tell(source)
        with self.step("daemon") as tell:
            address = self.start_daemon(digits)
            tell(f"console at http://{address}")
        grpc_port, rest_port = free_port(9000), free_port(9001)
        server = f"127.0.0.1:{grpc_port}"
        results = []
        with self.step(f"train version 1, {VERSIONS[0][1]} steps") as tell:
            tell(self.train(*VERSIONS[0]))
        with self.step("serve it") as tell:
            self.takt("up", self.example / "serving.yml", "--name", "mnist-serve", "--wait", "running",
                      "--set", f"GRPC_PORT={grpc_port}", "--set", f"REST_PORT={rest_port}")
            wait_for("version 1 at the server", lambda: 1 in self.served_versions(rest_port), 60)
            tell(f"gRPC at {server}, REST at 127.0.0.1:{rest_port}")
        with self.step("test it") as tell:
            rate, version, speed = self.client(server)
            results.append((version, rate))
            tell(f"error rate {100 * rate:.1f}%; {speed}")
        with self.step("a client that keeps asking"):
            self.takt("up", self.example / "client.yml", "--name", "mnist-asker", "--wait", "running",
                      "--set", "DURATION=3600", "--set", "RATE=200", "--set", f"SERVER={server}")
            wait_for("its first answers", self.answered_by_asker, 60)
            wait_for("version 1 on the chart", lambda: self.points_on_the_chart(1) >= 2, 60)
        with self.step(f"change configuration: version 2, {VERSIONS[1][1]} steps") as tell:
            tell(self.train(*VERSIONS[1]))
        with self.step("the server takes it up") as tell:
            wait_for("version 2 at the server", lambda: 2 in self.served_versions(rest_port), 60)
            seen = self.answered_by_asker()
            wait_for("answers of version 2", lambda: self.answered_by_asker() > seen + 100, 60)
            wait_for("version 2 on the chart", lambda: self.points_on_the_chart(2) >= 3, 60)
            self.takt("stop", "mnist-asker")
            log = wait_for("the client's summary", lambda: re.search(
                r"Answered by version 1: (\d+)\nAnswered by version 2: (\d+)\nSent (\d+), failed (\d+)",
                "\n".join(self.takt.log("mnist-asker"))), 60)
            switch = {"sent": int(log[3]), "failed": int(log[4])}
            tell(f"{log[3]} requests sent meanwhile, {log[4]} failed; version 1 answered {log[1]}, "
                 f"version 2 {log[2]}")
        with self.step("test it") as tell:
            rate, version, speed = self.client(server)
            results.append((version, rate))
            tell(f"error rate {100 * rate:.1f}%; {speed}")
        with self.step("its figures by version") as tell:
            figures = wait_for("the figures of both versions", lambda: self.figures("mnist-serve"), 60)
            tell("; ".join(f"version {version}: {of['requests']} requests, {of['failed']} failed, p99 "
                           f"{1000 * of['p99_seconds']:.1f} ms" for version, of in figures.items()))
        if [version for version, _ in results] != [1, 2] or switch["failed"]:
            raise DemoError(f"expected versions 1 and 2 and no failed request, got {results}, {switch}")
        links = self.links(address)
        self.report_file.write_text(json.dumps({
            "dataset": "mnist", "source": source,
            "versions": [{"version": v, "error_rate": round(r, 4)} for v, r in results],
            "switch": switch, "figures": figures, "steps": self.steps, "links": links}, indent=2) + "\n")
        self.tell_result(address, links, results, switch)

    def links(self, address):
        """Where the console shows what has happened, each with the span of time that it took."""
        now = time.time()
        span = {"from": round(1000 * (now - (time.monotonic() - self.started))), "to": round(1000 * (now + 5))}

        def link(page, **query):
            return f"http://{address}/#/{page}{'?' if query else ''}{urllib.parse.urlencode(query)}"
        return {
            "curves": link("learning", runs="mnist-train/1,mnist-train/2"),
            "switch": link("apps/mnist-serve/timeline", **span),
            "training": link("apps/mnist-train/timeline", **span),
            "client": link("apps/mnist-asker/timeline", **span),
            "versions": link("apps/mnist-serve"),
            **{f"log store {store}": link("logs", q=f"store={store}", **span)
               for store in ("training", "serving", "client")}}

    def tell_result(self, address, links, results, switch):
        takt = f"{os.path.relpath(self.program)} --host {address}".replace(" --host 127.0.0.1:8080", "")
        takt, _, host = takt.partition(" ")
        host = f" {host}" if host else ""
        print(f"\n  {'version':<9}{'steps':>7}{'error rate':>13}")
        for (version, rate), (_, steps) in zip(results, VERSIONS):
            print(f"  {version:<9}{steps:>7}{100 * rate:>12.1f}%")
        print(f"\n  {switch['sent']} requests while version 2 replaced version 1, "
              f"{switch['failed']} failed. {time.monotonic() - self.started:.0f} s in all.\n"
              f"\n  console      http://{address}")
        for name, link in links.items():
            print(f"    {name:<20}{link}")
        print(f"\n  look         {takt} apps{host};  {takt} logs mnist-serve{host}"
              f"\n  roll back    {takt} config mnist-serve --set PIN_VERSION=1{host}   (serves version 1)"
              f"\n               {takt} start mnist-client{host} --wait completed && {takt} logs "
              f"mnist-client --tail=5{host}"
              f"\n  and forward  {takt} rollback mnist-serve{host}")

    def explain_failure(self):
        """The last lines of every app's log."""
        if self.takt is None or self.takt.run("status").returncode != 0:
            return
        print(self.takt.run("apps").stdout, file=sys.stderr)
        for app in self.takt("apps", "--names").split():
            print(f"--- log of {app}\n{self.takt.run('logs', app, '--tail=20').stdout}", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description="The line from end to end on one machine.")
    parser.add_argument("action", nargs="?", choices=["run", "stop"], default="run")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release",
                        help="build tree (default build/release)")
    parser.add_argument("--home", type=pathlib.Path, default=ROOT / "build/demo",
                        help="where the demo keeps what it makes (default build/demo)")
    options = parser.parse_args()
    demo = Demo(options.build.resolve(), options.home.resolve())
    if not os.access(demo.program, os.X_OK):
        print(f"demo: {demo.program} is missing: `make build` makes it", file=sys.stderr)
        return 1
    try:
        if options.action == "stop":
            print("the demo is stopped" if demo.stop() else "no demo is running")
            return 0
        demo.run()
        if os.environ.get("DEMO_KEEP", "1") == "0":
            demo.stop()
            print("\n  stopped (DEMO_KEEP=0)")
        else:
            print("  end it       make demo-stop")
        return 0
    except (DemoError, subprocess.TimeoutExpired) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        if options.action == "run":
            demo.explain_failure()
            print("demo: what was started is still there to look at; `make demo-stop` ends it",
                  file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted; `make demo-stop` ends what was started", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
