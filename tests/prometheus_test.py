"""A real Prometheus scrapes the daemon; the dashboard and the alert rules ask for what is there."""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
import urllib.error
import urllib.parse
import urllib.request

from daemon_harness import DEADLINE_SECONDS, Daemon, free_port, wait_for

TAKT = None
SHARE = None

APP = """services:
  main:
    image: takt/host
    command: ["sh", "-c", "echo begins; exec sleep 1000000"]
"""
# What the rules say of a healthy platform, and of one where an app has failed.
RULE_TESTS = """rule_files: [RULES]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'up{job="takt", instance="a"}', values: '1x30'}
      - {series: 'takt_apps{state="running", instance="a"}', values: '2x30'}
      - {series: 'takt_run_alerts{instance="a"}', values: '0x30'}
      - {series: 'takt_service_restarts_total{app="x", service="y"}', values: '1x30'}
      - {series: 'takt_node_filesystem_free_bytes', values: '50x30'}
      - {series: 'takt_node_filesystem_size_bytes', values: '100x30'}
    alert_rule_test:
      - {eval_time: 20m, alertname: TaktDown, exp_alerts: []}
      - {eval_time: 20m, alertname: TaktAppFailed, exp_alerts: []}
      - {eval_time: 20m, alertname: TaktTrainingGoesWrong, exp_alerts: []}
      - {eval_time: 20m, alertname: TaktServiceRestarting, exp_alerts: []}
      - {eval_time: 20m, alertname: TaktDiskFull, exp_alerts: []}
  - interval: 1m
    input_series:
      - {series: 'takt_apps{state="failed", instance="a"}', values: '0 0 0 1x20'}
      - {series: 'takt_service_restarts_total{app="x", service="y"}', values: '0+1x20'}
    alert_rule_test:
      - {eval_time: 2m, alertname: TaktAppFailed, exp_alerts: []}
      - eval_time: 10m
        alertname: TaktAppFailed
        exp_alerts:
          - exp_labels: {severity: critical, state: failed, instance: a}
            exp_annotations: {summary: "1 apps have failed on a"}
      - eval_time: 18m
        alertname: TaktServiceRestarting
        exp_alerts:
          - exp_labels: {severity: warning, app: x, service: y}
            exp_annotations: {summary: "Service y of app x keeps restarting"}
"""


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=DEADLINE_SECONDS) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


class PrometheusTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory()
        cls.processes = []
        directory = pathlib.Path(cls.directory.name)
        cls.daemon = Daemon(TAKT, directory / "data")
        cls.address = cls.daemon.address
        template = directory / "app.yml"
        template.write_text(APP)
        subprocess.run([TAKT, "up", "--host", cls.address, "--name", "sleeper", "-y",
                        str(template)], check=True, stdout=subprocess.DEVNULL)
        config = directory / "prometheus.yml"
        config.write_text(json.dumps({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(SHARE / "prometheus" / "alerts.yml")],
            "scrape_configs": [{"job_name": "takt",
                                "static_configs": [{"targets": [cls.address]}]}]}))
        port = free_port()
        cls.prometheus = f"http://127.0.0.1:{port}"
        cls.log = open(directory / "prometheus.log", "w+")
        cls.processes.append(subprocess.Popen(
            ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory / 'tsdb'}",
             f"--web.listen-address=127.0.0.1:{port}"], stdout=cls.log, stderr=cls.log))
        wait_for(cls.ready, "Prometheus")

    @classmethod
    def ready(cls):
        try:
            return "Ready" in get(cls.prometheus + "/-/ready")
        except OSError:
            return False

    @classmethod
    def tearDownClass(cls):
        subprocess.run([TAKT, "rm", "--host", cls.address, "-y", "sleeper"],
                       stdout=subprocess.DEVNULL)
        # The daemon last: it must see that the app's instance is gone.
        wait_for(lambda: not json.loads(get(f"http://{cls.address}/api/v1/apps"))["apps"],
                 "the app to be gone")
        for process in reversed(cls.processes):
            process.terminate()
            process.wait(DEADLINE_SECONDS)
        cls.daemon.end()
        cls.log.close()
        cls.directory.cleanup()

    def query(self, expression):
        answer = json.loads(get(self.prometheus + "/api/v1/query?"
                                + urllib.parse.urlencode({"query": expression})))
        self.assertEqual(answer["status"], "success", (expression, answer))
        return answer["data"]["result"]

    def test_the_daemon_is_scraped_and_says_what_runs(self):
        wait_for(lambda: self.query('up{job="takt"} == 1'), "a scrape")
        live = wait_for(lambda: self.query('takt_service_live_instances{app="sleeper"} == 1'),
                        "the app's instance")
        self.assertEqual(live[0]["metric"]["service"], "main")
        for expression in ('takt_apps{state="running"} == 1', "takt_node_cores >= 1",
                           "takt_instance_memory_bytes > 0", "process_resident_memory_bytes > 0",
                           "process_cpu_seconds_total > 0", "process_open_fds > 3",
                           "time() - process_start_time_seconds < 3600", "takt_runs_running == 0",
                           'takt_station_services{station="other", state="running"} == 1',
                           'takt_station_seconds_total{station="other", state="running"} > 0'):
            wait_for(lambda e=expression: self.query(e), expression)
        targets = json.loads(get(self.prometheus + "/api/v1/targets"))["data"]["activeTargets"]
        self.assertEqual([(t["health"], t["lastError"]) for t in targets], [("up", "")])

    def test_names_follow_the_conventions(self):
        text = get(f"http://{self.address}/metrics")
        checked = subprocess.run(["promtool", "check", "metrics"], input=text,
                                 capture_output=True, text=True)
        self.assertEqual((checked.returncode, checked.stdout + checked.stderr), (0, ""))
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                self.assertIn("# HELP " + line.split()[2] + " ", text)

    def test_the_dashboard_and_the_rules_ask_for_what_is_there(self):
        wait_for(lambda: self.query("takt_instance_cpu_seconds_total"), "the app's figures")
        names = set(json.loads(get(self.prometheus + "/api/v1/label/__name__/values"))["data"])
        names.add("takt_run_alerts")  # there while a run goes wrong only (metrics_test.py)
        dashboard = json.loads((SHARE / "grafana" / "takt.json").read_text())
        expressions = [target["expr"] for panel in dashboard["panels"]
                       for target in panel["targets"]]
        self.assertGreater(len(expressions), 10)
        for expression in expressions:
            self.query(expression.replace("$__rate_interval", "1m").replace("$app", ".*"))
        rules = json.loads(get(self.prometheus + "/api/v1/rules"))["data"]["groups"][0]["rules"]
        self.assertGreater(len(rules), 5)
        for expression in expressions + [rule["query"] for rule in rules]:
            for name in re.findall(r"\b(?:takt|process)_\w+", expression):
                self.assertIn(name, names, expression)

    def test_the_rules_are_right_and_quiet_where_all_is_well(self):
        rules = SHARE / "prometheus" / "alerts.yml"
        subprocess.run(["promtool", "check", "rules", str(rules)], check=True,
                       stdout=subprocess.DEVNULL)
        tests = pathlib.Path(self.directory.name) / "rule_tests.yml"
        tests.write_text(RULE_TESTS.replace("RULES", str(rules)))
        tested = subprocess.run(["promtool", "test", "rules", str(tests)], capture_output=True,
                                text=True)
        self.assertEqual(tested.returncode, 0, tested.stdout + tested.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--source")
    parser.add_argument("--build", required=True)
    options, rest = parser.parse_known_args()
    TAKT = str(pathlib.Path(options.build) / "bin" / "takt")
    SHARE = pathlib.Path(options.build).resolve() / "share" / "takt"
    unittest.main(argv=[sys.argv[0], *rest], verbosity=1)
