"""Trains a softmax regression on MNIST and exports it as one version for a model server.

    mnist_export.py --training_iteration=2000 --export_version=2 --work_dir=/data /models/mnist

- The version appears at once and whole as EXPORT_DIR/00000002; one that exists is refused.
- Checkpoints lie in RUN_DIR/checkpoints, training events for TensorBoard in RUN_DIR/events/train
  and RUN_DIR/events/validation; RUN_DIR is WORK_DIR/runs/00000002 unless --run_dir says otherwise.
- Started again, it goes on from the last checkpoint. SIGTERM writes one and ends with status 143.
"""

import argparse
import fcntl
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time

import mnist_data

MAX_VALIDATION = 5000  # the original's 55,000 / 5,000 / 10,000
LEARNING_RATE = 0.01
BATCH = 50
SEED = 8  # any will do; one and the same makes a run repeatable

EXIT_REFUSED = 4    # the version exists, or somebody else is training it
EXIT_NO_DATA = 3
EXIT_STOPPED = 143  # as a program that SIGTERM ended


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text}")
    return value


def parse(arguments):
    parser = argparse.ArgumentParser(
        description="Trains a softmax regression on MNIST and exports it as one version.")
    parser.add_argument("export_dir", help="directory of the model; the version is made in it")
    parser.add_argument("--training_iteration", type=positive, default=1000, metavar="STEPS",
                        help=f"steps of SGD with batches of {BATCH} (default 1000)")
    parser.add_argument("--export_version", "--model_version", type=positive, default=1, metavar="N",
                        help="version to export (default 1)")
    parser.add_argument("--work_dir", default="/tmp/mnist", metavar="DIR",
                        help="where the digits and the runs are kept (default /tmp/mnist)")
    parser.add_argument("--run_dir", metavar="DIR",
                        help="checkpoints and events of this run (default WORK_DIR/runs/VERSION)")
    parser.add_argument("--checkpoint_steps", type=positive, default=500, metavar="N",
                        help="a checkpoint every N steps (default 500)")
    parser.add_argument("--summary_steps", type=positive, default=10, metavar="N",
                        help="an event every N steps (default 10); validation every 10 N")
    return parser.parse_args(arguments)


class Stop:
    """Set by SIGTERM and SIGINT; the training loop asks between steps."""

    def __init__(self):
        self.wanted = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.set)

    def set(self, number, frame):
        del number, frame
        self.wanted = True


def load_digits(work_dir):
    """(train, validation), each (images [n, 784] float32 in [0, 1], labels [n] int64)."""
    import numpy as np

    directory, source = mnist_data.prepare(work_dir)
    shape, pixels = mnist_data.read_idx(directory, "train-images-idx3-ubyte")
    (count,), labels = mnist_data.read_idx(directory, "train-labels-idx1-ubyte")
    if len(shape) != 3 or shape[1:] != (28, 28) or shape[0] != count or count < 2 * BATCH:
        raise mnist_data.DataError(f"{directory}: expected the same number of 28x28 images and labels, "
                                   f"got images {shape} and {count} labels")
    images = np.frombuffer(pixels, np.uint8).reshape(count, 784).astype(np.float32) / 255
    labels = np.frombuffer(labels, np.uint8).astype(np.int64)
    held = min(MAX_VALIDATION, count // 12)
    print(f"data: {source}: {count - held} digits to train, {held} to validate", flush=True)
    return (images[:-held], labels[:-held]), (images[-held:], labels[-held:])


class Batches:
    """Shuffled epochs. The batch of a step depends on the step alone, so a resumed run sees what an
    unbroken one would have seen."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels
        self.per_epoch = len(images) // BATCH
        self.epoch, self.order = None, None

    def at(self, step):
        import numpy as np

        epoch, index = divmod(step, self.per_epoch)
        if epoch != self.epoch:
            self.order = np.random.default_rng([SEED, epoch]).permutation(len(self.images))
            self.epoch = epoch
        chosen = self.order[index * BATCH:(index + 1) * BATCH]
        return self.images[chosen], self.labels[chosen]


def build_model(tf):
    class Softmax(tf.Module):
        def __init__(self):
            super().__init__()
            self.weights = tf.Variable(tf.zeros([784, 10]), name="weights")
            self.bias = tf.Variable(tf.zeros([10]), name="bias")

        def logits(self, images):
            return images @ self.weights + self.bias

        @tf.function(input_signature=[tf.TensorSpec([None, 784], tf.float32, "images")])
        def predict_images(self, images):
            return {"scores": tf.nn.softmax(self.logits(images), name="scores")}

        # Loss: the mean over the batch, for people. The gradient is that of the sum, as in the
        # original example: with batches of 50 the learning rate acts on 50 examples a step.
        @tf.function(input_signature=[tf.TensorSpec([None, 784], tf.float32),
                                      tf.TensorSpec([None], tf.int64)])
        def train(self, images, labels):
            with tf.GradientTape() as tape:
                loss, accuracy = self.judge(images, labels)
                total = loss * tf.cast(tf.shape(images)[0], tf.float32)
            weights, bias = tape.gradient(total, [self.weights, self.bias])
            self.weights.assign_sub(LEARNING_RATE * weights)
            self.bias.assign_sub(LEARNING_RATE * bias)
            return loss, accuracy

        @tf.function(input_signature=[tf.TensorSpec([None, 784], tf.float32),
                                      tf.TensorSpec([None], tf.int64)])
        def judge(self, images, labels):
            logits = self.logits(images)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
            right = tf.equal(tf.argmax(logits, 1), labels)
            return tf.reduce_mean(loss), tf.reduce_mean(tf.cast(right, tf.float32))

    return Softmax()


def export(tf, model, export_dir, version):
    """Writes the version beside its place and renames it there. FileExistsError when it exists."""
    final = pathlib.Path(export_dir, f"{version:08d}")
    staging = pathlib.Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=export_dir))
    try:
        signature = model.predict_images.get_concrete_function()
        tf.saved_model.save(model, str(staging), signatures={
            "serving_default": signature, "predict_images": signature})
        staging.chmod(0o755)
        for path in sorted(staging.rglob("*"), reverse=True) + [staging]:
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        if final.exists():
            raise FileExistsError(str(final))
        try:
            staging.rename(final)
        except OSError as error:
            raise FileExistsError(f"{final}: {error.strerror}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return final


def train(tf, options, run_dir, stop, training, validation):
    """The trained model, or None when it was asked to stop."""
    import numpy as np

    model = build_model(tf)
    step = tf.Variable(0, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(model=model, step=step)
    checkpoints = tf.train.CheckpointManager(checkpoint, str(run_dir / "checkpoints"), max_to_keep=3,
                                             checkpoint_name="model")
    if checkpoints.latest_checkpoint:
        checkpoint.restore(checkpoints.latest_checkpoint).assert_consumed()
        print(f"resumed at step {step.numpy()} from {checkpoints.latest_checkpoint}", flush=True)
    writers = {name: tf.summary.create_file_writer(str(run_dir / "events" / name))
               for name in ("train", "validation")}

    # What tf.summary.scalar and its like write, without their need of the tensorboard package.
    def metadata_of(plugin, data_class):
        metadata = tf.compat.v1.SummaryMetadata(data_class=f"DATA_CLASS_{data_class}")
        metadata.plugin_data.plugin_name = plugin
        return metadata

    scalar = metadata_of("scalars", "SCALAR")

    def record(name, at, **values):
        with writers[name].as_default(step=at):
            for tag, value in values.items():
                tf.summary.write(tag, tf.cast(value, tf.float32), metadata=scalar)

    def picture(at):
        """How the weights are spread, and what each digit's weights look for: ten squares in a row."""
        weights = model.weights.numpy()
        counts, edges = np.histogram(weights, bins=30)
        squares = weights.T.reshape(10, 28, 28).transpose(1, 0, 2).reshape(28, 280, 1)
        gray = 255 * (squares - weights.min()) / max(weights.max() - weights.min(), 1e-9)
        png = tf.io.encode_png(tf.cast(gray, tf.uint8))
        with writers["train"].as_default(step=at):
            tf.summary.write("weights", np.stack([edges[:-1], edges[1:], counts], 1),
                             metadata=metadata_of("histograms", "TENSOR"))
            tf.summary.write("weights of each digit", tf.stack(["280", "28", png]),
                             metadata=metadata_of("images", "BLOB_SEQUENCE"))

    def validate(at, train_loss):
        loss, accuracy = model.judge(*validation)
        record("validation", at, loss=loss, accuracy=accuracy)
        picture(at)
        for writer in writers.values():
            writer.flush()
        print(f"step {at}/{options.training_iteration}: loss {float(train_loss):.4f}, validation loss "
              f"{float(loss):.4f}, validation accuracy {100 * float(accuracy):.1f}%", flush=True)

    def save(at):
        step.assign(at)
        checkpoints.save(checkpoint_number=at)

    batches = Batches(*training)
    validation = tuple(tf.constant(part) for part in validation)
    first, last = int(step.numpy()), options.training_iteration
    if first == 0:
        with writers["train"].as_default(step=0):
            tf.summary.write("setup", f"{options.training_iteration} steps of {BATCH} digits each, learning "
                             f"rate {LEARNING_RATE}, {len(training[0])} digits to train on",
                             metadata=metadata_of("text", "TENSOR"))
    for at in range(first + 1, last + 1):
        loss, accuracy = model.train(*batches.at(at - 1))
        if at % options.summary_steps == 0 or at == last:
            record("train", at, loss=loss, accuracy=accuracy, learning_rate=LEARNING_RATE)
        if at % (10 * options.summary_steps) == 0 or at == last:
            validate(at, loss)
        if at % options.checkpoint_steps == 0 or at == last or stop.wanted:
            save(at)
        if stop.wanted and at != last:
            print(f"stopped at step {at}, which is in the checkpoint; started again it goes on from "
                  "there", flush=True)
            return None
    for writer in writers.values():
        writer.close()
    return model


def main(arguments):
    options = parse(arguments)
    version = f"{options.export_version:08d}"
    final = pathlib.Path(options.export_dir, version)
    run_dir = pathlib.Path(options.run_dir or os.path.join(options.work_dir, "runs", version))
    if final.exists():
        print(f"mnist_export: version {options.export_version} exists already: {final}; choose another "
              "--export_version", file=sys.stderr)
        return EXIT_REFUSED
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        os.makedirs(options.export_dir, exist_ok=True)
        lock = open(run_dir / ".lock", "w", encoding="utf-8")
    except OSError as error:
        print(f"mnist_export: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        print(f"mnist_export: another trainer is at work on {run_dir}", file=sys.stderr)
        return EXIT_REFUSED
    # What a trainer that was killed in its export left; nobody else works on this version.
    for left in pathlib.Path(options.export_dir).glob(f".{version}-*"):
        shutil.rmtree(left, ignore_errors=True)

    started = time.monotonic()
    print(f"training version {options.export_version}: {options.training_iteration} steps", flush=True)
    stop = Stop()
    try:
        training, validation = load_digits(options.work_dir)
    except mnist_data.DataError as error:
        print(f"mnist_export: {error}", file=sys.stderr)
        return EXIT_NO_DATA
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # the same figures on every processor
    import tensorflow as tf  # the slow part of the start: after all that can be refused

    model = train(tf, options, run_dir, stop, training, validation)
    if model is None:
        return EXIT_STOPPED
    try:
        exported = export(tf, model, options.export_dir, options.export_version)
    except FileExistsError as error:
        print(f"mnist_export: version {options.export_version} appeared meanwhile: {error}",
              file=sys.stderr)
        return EXIT_REFUSED
    print(f"exported {exported} in {time.monotonic() - started:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
