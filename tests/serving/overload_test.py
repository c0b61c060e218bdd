"""More requests than a model can answer: each is answered, or refused by a code that says why; nobody times out,
and other models are answered meanwhile. With batching and without, over gRPC and REST."""
import json, os, shutil, subprocess, sys, tempfile, threading
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import Server

ARGS = harness.arguments()
REFUSED = {'UNAVAILABLE', 'RESOURCE_EXHAUSTED', '503', '429'}


def export_slow(folder):
    """A model of which a run takes milliseconds on any machine; no two of its requests share a run."""
    import tensorflow as tf
    module = tf.Module()
    square = tf.Variable(tf.random.stateless_normal([512, 512], [1, 2]) / 30.0)
    module.square = square

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, 'x')])
    def slow(x):
        y = square
        for _ in range(4):
            y = tf.matmul(y, square)
        return {'y': x + 1e-30 * tf.reduce_sum(y)}

    module.slow = slow
    tf.saved_model.save(module, os.path.join(folder, 'slow', '1'), signatures={'serving_default': slow})


def load(*flags):
    """The report of a takt-load that asks the slow model."""
    with tempfile.TemporaryDirectory() as out:
        report = os.path.join(out, 'report.json')
        done = subprocess.run([os.path.join(ARGS.build, 'bin', 'takt-load'), '--model', 'slow', '--json', report,
                               '-d', '0.7', '--warm-up', '0.3', *flags], capture_output=True, text=True, timeout=120)
        assert os.path.exists(report), done.stdout + done.stderr
        with open(report) as f:
            return json.load(f)


def check(server, reports, *flags):
    """Asks, and asks another model meanwhile."""
    thread = threading.Thread(target=lambda: reports.append(load(*flags)))
    thread.start()
    answers = []
    while thread.is_alive():
        answers.append(server.predict('half', [2.0]))
    thread.join()
    wrong = [answer for answer in answers if answer != [3.0]]  # 2/2 + 2
    assert answers and not wrong, (flags, wrong[:3])


def main():
    folder = tempfile.mkdtemp(prefix='overload_test.')
    export_slow(folder)
    half = os.path.join(harness.models(ARGS.build), 'half')
    config = os.path.join(folder, 'models.config')
    with open(config, 'w') as f:
        f.write('model_config_list {\n'
                f'  config {{ name: "slow" base_path: "{folder}/slow" model_platform: "tensorflow" }}\n'
                f'  config {{ name: "half" base_path: "{half}" model_platform: "tensorflow"\n'
                '    model_version_policy { specific { versions: 1 } } }\n}\n')
    for batching in ('off', 'auto'):
        with Server(ARGS.build, f'--model_config_file={config}', f'--batching={batching}', '--event_loop_threads=1',
                    '--rest_api_num_threads=2') as server:
            grpc, rest = ('--target', f'127.0.0.1:{server.grpc}'), ('--target', f'127.0.0.1:{server.rest}', '--rest')
            for flags in ((*grpc, '-c', '2', '-s', '1000'), (*grpc, '-c', '2', '-s', '1000', '--timeout-ms', '10000'),
                          (*rest, '-c', '1500')):
                reports = []
                check(server, reports, *flags)
                report = reports[0]
                assert report['answered_per_second'] > 0, (batching, flags, report)
                assert report['errors'] and set(report['errors']) <= REFUSED, (batching, flags, report['errors'])
    shutil.rmtree(folder)
    print('ok')


main()
