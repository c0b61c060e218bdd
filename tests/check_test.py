"""takt check: what it prints where, its exit codes, and that it asks no daemon."""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

OPTIONS = argparse.ArgumentParser()
OPTIONS.add_argument("--source", required=True)
OPTIONS.add_argument("--build", required=True)
ARGS = OPTIONS.parse_args()
TAKT = pathlib.Path(ARGS.build) / "bin/takt"
USER = pathlib.Path(ARGS.source) / "tests/template/user"

GOOD = """services:
  web:
    image: "x:${TAG:-1}"
    command: [run, "--steps=${TRAIN_STEPS}"]
    env_file: [{path: a.env, required: false}]
"""


class Check(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)

    def check(self, text, *options, stdin=None):
        path = pathlib.Path(self.dir.name) / "app.yml"
        if isinstance(text, bytes):
            path.write_bytes(text)
        else:
            path.write_text(text)
        file = "-" if stdin is not None else str(path)
        done = subprocess.run([TAKT, "check", file, *options], input=stdin, capture_output=True,
                              text=True, timeout=60, env={"PATH": "/nowhere"})
        return done.returncode, done.stdout, done.stderr.replace(str(path), "app.yml")

    def test_lists_the_parameters(self):
        code, out, err = self.check(GOOD)
        self.assertEqual(code, 0)
        self.assertEqual(out.splitlines(), [
            "PARAMETER    TYPE     DEFAULT  REQUIRED  USED",
            "TAG          integer  1        no        services.web.image (line 3)",
            "TRAIN_STEPS  integer           yes       services.web.command[1] (line 4)"])
        self.assertEqual(err, "app.yml:4:29: warning: services.web.command[1]: the variable "
                              "TRAIN_STEPS has no value; the empty text is used\n")

    def test_says_where_what_is_wrong(self):
        code, out, err = self.check("services:\n  web:\n    image: x\n    comand: y\n")
        self.assertEqual((code, out), (2, "no parameters\n"))
        self.assertEqual(err, 'app.yml:4:5: services.web.comand: there is no field "comand" here '
                              "(did you mean command?)\n")

    def test_resolved_is_json_alone_on_standard_output(self):
        code, out, _ = self.check(GOOD, "--resolved", "--set", "TRAIN_STEPS=5", "--set", "TAG=2")
        self.assertEqual(code, 0)
        web = json.loads(out)["services"]["web"]
        self.assertEqual(web["image"], "x:2")
        self.assertEqual(web["command"], ["run", "--steps=5"])
        code, out, err = self.check("services: {}\nfoo: 1\n", "--resolved")
        self.assertEqual((code, out), (2, ""))
        self.assertIn("app.yml:2:1: foo:", err)

    def test_reads_files_beside_the_template(self):
        (pathlib.Path(self.dir.name) / "a.env").write_text("A=from file\n")
        _, out, _ = self.check(GOOD, "--resolved")
        self.assertEqual(json.loads(out)["services"]["web"]["environment"], {"A": "from file"})

    def test_the_name_is_in_the_names_of_networks(self):
        _, out, _ = self.check(GOOD, "--resolved", "--name", "mine")
        self.assertEqual(json.loads(out)["networks"]["default"]["name"], "mine_default")

    def test_json_for_programs(self):
        code, out, _ = self.check(GOOD + "    comand: y\n", "--json")
        self.assertEqual(code, 2)
        report = json.loads(out)
        self.assertFalse(report["valid"])
        self.assertEqual([p["name"] for p in report["parameters"]], ["TAG", "TRAIN_STEPS"])
        self.assertEqual(report["parameters"][0]["default"], "1")
        error = [i for i in report["issues"] if i["severity"] == "error"][0]
        self.assertEqual((error["line"], error["column"]), (6, 5))
        self.assertEqual(error["suggestion"], "did you mean command?")

    def test_a_value_for_no_parameter_is_a_warning(self):
        code, _, err = self.check(GOOD, "--set", "TRAIN_STEP=5", "--set", "TRAIN_STEPS=5")
        self.assertEqual((code, err), (0, "warning: --set TRAIN_STEP: the template has no such "
                                          "parameter (did you mean TRAIN_STEPS?)\n"))

    def test_reads_standard_input(self):
        code, out, _ = self.check("", "--resolved", stdin="services: {s: {image: x}}\n")
        self.assertEqual(code, 0)
        self.assertEqual(json.loads(out)["services"]["s"]["image"], "x")

    def test_wrong_usage_and_missing_files_have_their_exit_codes(self):
        for arguments, code in ((["check"], 2), (["check", "/nowhere.yml"], 3),
                                (["check", USER / "client.yml", "--set", "NOTHING"], 2),
                                (["check", USER / "client.yml", "--nope"], 2),
                                (["check", USER], 2), (["chekc"], 2)):
            done = subprocess.run([TAKT, *arguments], capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, code, (arguments, done.stderr))
            self.assertTrue(done.stderr, arguments)
            self.assertEqual(done.stdout, "", arguments)

    def test_a_file_that_is_too_large_is_refused(self):
        code, out, err = self.check(b"#" * (100 << 20))
        self.assertEqual((code, out), (2, ""))
        self.assertEqual(err, "app.yml:1:1: expected at most 1048576 bytes\n")

    def test_the_users_three_pass(self):
        for file in sorted(USER.glob("*.yml")):
            done = subprocess.run([TAKT, "check", file], capture_output=True, text=True,
                                  timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
