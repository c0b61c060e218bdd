"""Takes the message definitions of TensorFlow and TensorFlow Serving out of the installed Python
packages, so that C++ code can be generated from the very definitions that clients use.

usage: extract_protos.py OUT_DESCRIPTOR_SET ROOT.proto ...

The generated *_pb2.py files hold each file's FileDescriptorProto as one bytes literal. It is read
from the source text: importing tensorflow would take seconds and register gigabytes of kernels.
Writes a FileDescriptorSet of the roots and everything they import, dependencies first, and prints
one line a file of those for which code is to be generated (google/protobuf/* comes with protobuf).
"""

import ast
import pathlib
import sys
import sysconfig

from google.protobuf import descriptor_pb2

SITE = pathlib.Path(sysconfig.get_paths()["purelib"])
# Where a file's module lies when it is not at the file's own path.
PREFIXES = ("", "tensorflow/compiler", "tensorflow")


def descriptor_bytes(path):
    """The literal in `DESCRIPTOR = ...AddSerializedFile(b'...')`."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
                and getattr(node.value.func, "attr", "") == "AddSerializedFile"):
            return ast.literal_eval(node.value.args[0])
    return None


def load(name):
    tried = []
    for prefix in PREFIXES:
        path = SITE / prefix / (name.removesuffix(".proto") + "_pb2.py")
        tried.append(str(path))
        if not path.is_file():
            continue
        data = descriptor_bytes(path)
        if data is None:
            sys.exit(f"{path}: no AddSerializedFile(b'...'): not written by protoc 3.20 or newer")
        proto = descriptor_pb2.FileDescriptorProto.FromString(data)
        if proto.name == name:
            return proto
    sys.exit(f"{name}: none of {', '.join(tried)} defines it; is tensorflow-serving-api installed "
             f"in {SITE}?")


def main():
    out, roots = pathlib.Path(sys.argv[1]), sys.argv[2:]
    result, done = descriptor_pb2.FileDescriptorSet(), set()

    def visit(name):
        if name in done:
            return
        done.add(name)
        proto = load(name)
        for dependency in proto.dependency:
            visit(dependency)
        result.file.append(proto)

    for root in roots:
        visit(root)
    data = result.SerializeToString(deterministic=True)
    if not out.is_file() or out.read_bytes() != data:  # keep the time stamp: nothing to rebuild
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(data)
    for file in result.file:
        if not file.name.startswith("google/protobuf/"):
            print(file.name)


if __name__ == "__main__":
    main()
