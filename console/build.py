"""Builds the console and packs it for the takt binary.

  build.py --openapi FILE --out DIR [--stamp FILE]

DIR/dist is the console as a web server would serve it; DIR/console_files.inc the table of its files
and DIR/console_files.bin their content, gzip'd, for console_files.cc. Packages are installed from the
lock file, and only when that changed, so that a second build needs no network.
"""

import argparse
import fcntl
import gzip
import hashlib
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8",
         ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml", ".json": "application/json",
         ".txt": "text/plain; charset=utf-8"}


def fail(message):
    sys.exit(f"console: {message}")


def run(*command):
    done = subprocess.run(command, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.stderr.write(done.stdout)
        fail(f"`{' '.join(map(str, command))}` failed with exit code {done.returncode}")


def install_packages():
    """node_modules as the lock file says; a stamp tells whether it is."""
    stamp = HERE / "node_modules/.takt-lock"
    want = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == want:
        return
    if not shutil.which("npm"):
        fail("npm is not installed: run `make setup`")
    run("npm", "ci", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts")
    stamp.write_text(want)


def pack(dist, out):
    """One blob and a table of offsets into it. Names under assets/ carry a hash of their content."""
    blob = b""
    rows = []
    for path in sorted(p for p in dist.rglob("*") if p.is_file()):
        name = path.relative_to(dist).as_posix()
        if path.suffix not in TYPES:
            fail(f"{name}: no content type for {path.suffix!r}")
        content = path.read_bytes()
        packed = gzip.compress(content, 9, mtime=0)
        etag = hashlib.sha256(content).hexdigest()[:16]
        rows.append(f'{{"{name}", "{TYPES[path.suffix]}", "{etag}", {len(content)}, {len(blob)}, {len(packed)}}},')
        blob += packed
    (out / "console_files.bin").write_bytes(blob)
    (out / "console_files.inc").write_text("\n".join(rows) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--openapi", required=True, type=pathlib.Path)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--stamp", type=pathlib.Path)
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    # Two presets may build at once; they share node_modules and generated.ts.
    with open(out.parent.parent / ".console.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        install_packages()
        run("node_modules/.bin/openapi-typescript", str(options.openapi.resolve()), "-o", "src/api/generated.ts")
        run("node_modules/.bin/vite", "build", "--logLevel", "warn", "--outDir", str(out / "dist"), "--emptyOutDir")
    pack(out / "dist", out)
    if options.stamp:
        options.stamp.touch()


main()
