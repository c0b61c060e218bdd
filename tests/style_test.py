"""What STYLE.md says, checked. Each check lists every offender with file and line."""

import argparse
import pathlib
import re
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent

GENERATED = {"package-lock.json", "requirements.lock", "LICENSE"}


def tracked(*suffixes):
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [ROOT / n for n in names
            if (not suffixes or n.endswith(suffixes)) and (ROOT / n).is_file()]


def lines(path):
    return enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)


def rooms():
    """Room -> the rooms it may use, from cmake/rooms.cmake."""
    table = {}
    for _, line in lines(ROOT / "cmake/rooms.cmake"):
        match = re.match(r'set\(TAKT_ALLOWED_(\w+) "?([\w ]*)"?\)', line)
        if match:
            table[match[1]] = set(match[2].split())
    return table


class Style(unittest.TestCase):
    def report(self, offenders, rule):
        self.assertFalse(offenders, rule + ":\n  " + "\n  ".join(offenders[:50]))

    def find(self, paths, pattern, allowed=lambda path, line: False):
        regex = re.compile(pattern)
        return [f"{p.relative_to(ROOT)}:{n}: {l.strip()[:100]}" for p in paths
                for n, l in lines(p) if regex.search(l) and not allowed(p, l)]

    def test_rooms_include_only_what_they_may(self):
        table = rooms()
        self.assertGreater(len(table), 5)
        bad = []
        for path in tracked(".h", ".cc"):
            parts = path.relative_to(ROOT).parts
            if parts[0] != "src":
                continue
            may = table[parts[1]] | {parts[1]}
            for n, line in lines(path):
                match = re.match(r'#include "(\w+)/', line)
                if match and match[1] in table and match[1] not in may:
                    bad.append(f"{path.relative_to(ROOT)}:{n}: {line}")
        self.report(bad, "a room may include only the rooms of its row in cmake/rooms.cmake")

    def test_headers_open_once_and_import_no_namespace(self):
        headers = tracked(".h")
        bad = [str(p.relative_to(ROOT)) for p in headers if "#pragma once" not in p.read_text()]
        bad += self.find(headers, r"^using namespace")
        self.report(bad, "a header has #pragma once and no `using namespace`")

    def test_nothing_of_ours_throws(self):
        sources = [p for p in tracked(".h", ".cc") if p.is_relative_to(ROOT / "src")]
        self.report(self.find(sources, r"^\s*throw\b"), "errors are absl::Status")

    def test_tests_do_not_sleep_for_a_fixed_time(self):
        tests = [p for p in tracked("_test.cc")]
        self.report(self.find(tests, r"sleep_for|\busleep\(|[^_.]sleep\(\d"),
                    "wait for a condition with a deadline")

    def test_no_leftovers(self):
        paths = [p for p in tracked(".h", ".cc", ".py", ".sh", ".ts", ".svelte", ".md", ".cmake")
                 if p != pathlib.Path(__file__).resolve()]
        self.report(self.find(paths, r"\b(TODO|FIXME|XXX|HACK)\b"), "what is not done is not in the code")

    def test_no_machine_paths_and_no_registry_hosts(self):
        paths = [p for p in tracked() if p != pathlib.Path(__file__).resolve()
                 and p.suffix not in (".png", ".gz", ".json.gz")]
        pattern = (r"/work/(main|shared|wt)|/opt/takt-venv|registry\.npmjs|pypi\.org|"
                   r"files\.pythonhosted|deb\.debian\.org|proxy\.golang")
        self.report(self.find(paths, pattern), "no path of one machine, no registry host")

    def test_clang_format_agrees(self):
        sources = [str(p) for p in tracked(".h", ".cc")]
        done = subprocess.run(["clang-format", "--dry-run", "-Werror", *sources],
                              capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr[:4000])

    def test_links_in_documents_lead_somewhere(self):
        bad = []
        for path in tracked(".md"):
            for n, line in lines(path):
                for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", line):
                    if "://" not in target and not (path.parent / target).exists():
                        bad.append(f"{path.relative_to(ROOT)}:{n}: {target}")
        self.report(bad, "a link to a file that is not there")

    def test_architecture_stays_readable(self):
        count = len((ROOT / "ARCHITECTURE.md").read_text().splitlines())
        self.assertLessEqual(count, 400, "ARCHITECTURE.md has at most 400 lines")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--source")
    parser.add_argument("--build")
    _, rest = parser.parse_known_args()
    unittest.main(argv=[sys.argv[0], *rest])
