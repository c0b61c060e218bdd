"""The model server's life with versions that come, go and break, asked by stock clients."""
import json, os, shutil, subprocess, sys, tempfile, threading, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import Server, wait_for

ARGS = harness.arguments()
MODELS = harness.models(ARGS.build)
HALF = os.path.join(MODELS, 'half')  # version 1: x/2 + 2, version 2: x/2 + 3


class Base:
    """A base path of its own, and a server on it."""

    def __init__(self, *flags, versions=(1,), **kwargs):
        self.path = tempfile.mkdtemp(prefix='serving_base.')
        for version in versions:
            self.publish(version)
        self.server = Server(ARGS.build, '--model_name=half', f'--model_base_path={self.path}', *flags,
                             **kwargs)

    def place(self, version):
        return os.path.join(self.path, f'{version:08d}')

    def publish(self, version, source=None):
        """All at once: copied beside, then renamed."""
        staging = os.path.join(self.path, f'tmp-{version}')
        shutil.copytree(os.path.join(HALF, f'{source or version:08d}'), staging)
        os.rename(staging, self.place(version))

    def predicts(self, value):
        return self.server.predict('half', [2.0]) == [value]

    def __enter__(self):
        self.server.__enter__()
        return self

    def __exit__(self, *error):
        self.server.__exit__(*error)
        if error[0] is not None:
            print(self.server.log()[-4000:])
        shutil.rmtree(self.path, ignore_errors=True)


def test_new_version_is_loaded_beside_the_old_one_and_takes_over():
    """A second version appears by rename: it serves within a few polls, and the first is unloaded."""
    with Base() as base:
        assert base.predicts(3.0)
        base.publish(2)
        wait_for('version 2 answers', lambda: base.predicts(4.0))
        wait_for('version 1 is gone',
                 lambda: base.server.versions('half') == {1: 'END', 2: 'AVAILABLE'})
        base.server.wait_for_log('version 2 loaded')
        base.server.wait_for_log('version 1 unloaded')
        assert base.server.predict('half', [2.0], version=1) == \
            'Servable not found for request: Specific(half, 1)'


def test_deleting_the_newest_version_rolls_back():
    """The directory of version 2 goes: version 1 is loaded again before version 2 is unloaded."""
    with Base(versions=(1, 2)) as base:
        assert base.predicts(4.0)
        shutil.rmtree(base.place(2))
        wait_for('version 1 answers', lambda: base.predicts(3.0))
        wait_for('version 2 is gone', lambda: base.server.versions('half').get(2) != 'AVAILABLE')


def test_half_copied_version_is_not_loaded_until_it_is_whole():
    """A copy stops in the middle of a shard: version 1 goes on, no load is tried; when the rest comes,
    version 2 serves."""
    with Base() as base:
        shard = 'variables/variables.data-00000-of-00001'
        shutil.copytree(os.path.join(HALF, '00000002'), base.place(2),
                        ignore=shutil.ignore_patterns('variables.data*'))
        whole = open(os.path.join(HALF, '00000002', shard), 'rb').read()
        with open(os.path.join(base.place(2), shard), 'wb') as f:
            f.write(whole[:-1])
        base.server.wait_for_log('version 2 is not complete')
        wait_for('it shows as START', lambda: base.server.versions('half').get(2) == 'START')
        assert base.predicts(3.0)
        with open(os.path.join(base.place(2), shard), 'ab') as f:
            f.write(whole[-1:])
        wait_for('version 2 answers', lambda: base.predicts(4.0))
        assert 'failed to load' not in base.server.log()


def test_vanished_base_path_keeps_serving():
    """The storage goes away and comes back with a new version: not one request fails meanwhile."""
    with Base() as base:
        away = base.path + '.away'
        os.rename(base.path, away)
        base.server.wait_for_log('keeps serving version 1')
        assert base.predicts(3.0)
        assert base.server.versions('half') == {1: 'AVAILABLE'}
        os.rename(away, base.path)
        base.server.wait_for_log('is there again')
        base.publish(2)
        wait_for('version 2 answers', lambda: base.predicts(4.0))


def test_corrupt_shard_fails_its_version_only_and_is_retried_when_it_changes():
    """A byte of version 2's weights is flipped: its load fails and says so, version 1 goes on; put
    right, it is loaded at once, long before a retry would be due."""
    with Base('--load_retry_interval_micros=3600000000') as base:
        staging = os.path.join(base.path, 'tmp-2')
        shutil.copytree(os.path.join(HALF, '00000002'), staging)
        shard = os.path.join(staging, 'variables/variables.data-00000-of-00001')
        good = open(shard, 'rb').read()
        with open(shard, 'wb') as f:
            f.write(good[:1] + bytes([good[1] ^ 0x40]) + good[2:])
        os.rename(staging, base.place(2))
        base.server.wait_for_log('version 2 failed to load')
        assert base.predicts(3.0)
        assert base.server.versions('half')[2] == 'END'
        with open(os.path.join(base.place(2), 'variables/variables.data-00000-of-00001'), 'wb') as f:
            f.write(good)
        wait_for('version 2 answers', lambda: base.predicts(4.0))


def test_start_beside_a_broken_version_serves_the_one_below():
    """At the start the newest version is damaged: the one below serves at once."""
    with Base(wait=False, versions=(1,)) as base:
        os.makedirs(base.place(2))
        with open(os.path.join(base.place(2), 'saved_model.pb'), 'wb') as f:
            f.write(b'not a graph')
        base.server.wait_until_up()
        wait_for('version 1 answers', lambda: base.predicts(3.0))


def test_base_path_that_is_not_there_yet_is_waited_for():
    """The server starts before the model's directory exists, answers what the original answers for a
    model without versions, and loads the model when it comes."""
    path = os.path.join(tempfile.mkdtemp(prefix='serving_base.'), 'later')
    with Server(ARGS.build, '--model_name=half', f'--model_base_path={path}') as server:
        assert server.ask('/v1/models/half')[0] == 404
        assert server.predict('half', [1.0]) == 'Servable not found for request: Latest(half)'
        shutil.copytree(os.path.join(HALF, '00000001'), os.path.join(path, '1'))
        wait_for('it answers', lambda: server.predict('half', [2.0]) == [3.0])


def test_switch_under_load_fails_no_request():
    """Eight clients ask without pause, gRPC and REST, while versions change ten times: each answer is
    one version's or the other's, none is an error."""
    import grpc
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
    with Base() as base:
        stop, wrong, counts = threading.Event(), [], [0] * 8

        def by_grpc(i):
            stub = prediction_service_pb2_grpc.PredictionServiceStub(base.server.channel())
            request = predict_pb2.PredictRequest()
            request.model_spec.name = 'half'
            request.inputs['x'].dtype = 1
            request.inputs['x'].tensor_shape.dim.add(size=1)
            request.inputs['x'].float_val.append(2.0)
            while not stop.is_set():
                try:
                    value = stub.Predict(request, timeout=20).outputs['y'].float_val[0]
                    if value not in (3.0, 4.0):
                        wrong.append(value)
                except grpc.RpcError as error:
                    wrong.append(error)
                counts[i] += 1

        def by_rest(i):
            while not stop.is_set():
                answer = base.server.predict('half', [2.0])
                if answer not in ([3.0], [4.0]):
                    wrong.append(answer)
                counts[i] += 1

        threads = [threading.Thread(target=by_grpc if i < 6 else by_rest, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for version in range(2, 12):
            base.publish(version, source=version % 2 + 1)
            base.server.wait_for_log(f'version {version} loaded')
            base.server.wait_for_log(f'version {version - 1} unloaded')
            shutil.rmtree(base.place(version - 1))
        stop.set()
        for thread in threads:
            thread.join()
        assert not wrong, wrong[:3]
        assert min(counts) > 0, counts


def test_sigterm_ends_requests_in_flight_and_exits_with_zero():
    """SIGTERM arrives while clients ask: what the server took is answered, nothing hangs, the exit
    status is zero, and what comes later is refused at the socket."""
    import grpc
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
    with Base() as base:
        channel = base.server.channel()
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = predict_pb2.PredictRequest()
        request.model_spec.name = 'half'
        request.inputs['x'].dtype = 1
        request.inputs['x'].tensor_shape.dim.add(size=1)
        request.inputs['x'].float_val.append(2.0)
        stub.Predict(request, timeout=20)
        answers = [stub.Predict.future(request, timeout=20) for _ in range(200)]
        answers[0].result()
        assert base.server.terminate() == 0
        codes = set()
        for answer in answers:
            code = answer.code()
            codes.add(code)
            assert code in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE), code
        assert grpc.StatusCode.OK in codes
        base.server.wait_for_log('no request was cut off')


def test_expired_deadline_is_answered_as_such():
    """A call arrives with its deadline already past: DEADLINE_EXCEEDED; the same call with
    time left is answered."""
    from tensorflow_serving.apis import predict_pb2
    with Base() as base:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = 'half'
        request.inputs['x'].dtype = 1
        request.inputs['x'].tensor_shape.dim.add(size=1)
        request.inputs['x'].float_val.append(2.0)
        body = request.SerializeToString()
        message = os.path.join(base.path, 'message')
        with open(message, 'wb') as f:
            f.write(b'\0' + len(body).to_bytes(4, 'big') + body)

        def call(timeout):
            return subprocess.run(
                ['nghttp', '-v', '-d', message, '-H', ':method: POST', '-H', 'te: trailers',
                 '-H', 'content-type: application/grpc', '-H', f'grpc-timeout: {timeout}',
                 f'http://127.0.0.1:{base.server.grpc}/tensorflow.serving.PredictionService/Predict'],
                capture_output=True, text=True, errors='replace', timeout=30).stdout
        assert 'grpc-status: 0' in call('20S')
        assert 'grpc-status: 4' in call('1n')


def abort_in_initialiser(where):
    """A SavedModel whose initialiser makes TensorFlow call abort()."""
    import tensorflow as tf
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], name='x')
        y = tf.identity(x, name='y')
        info = v1.saved_model.utils.build_tensor_info
        signature = v1.saved_model.signature_def_utils.build_signature_def(
            {'x': info(x)}, {'y': info(y)}, 'tensorflow/serving/predict')
        builder = v1.saved_model.Builder(where)
        builder.add_meta_graph_and_variables(
            session, ['serve'], {'serving_default': signature},
            main_op=tf.raw_ops.Abort(error_msg='the initialiser gives up'))
        builder.save()


def test_version_that_crashes_its_load_is_told_and_harms_nobody():
    """A version that makes TensorFlow abort ends a process on trial: the server says by which signal, serves
    the version before, and takes up the next good one."""
    with Base('--max_num_load_retries=0') as base:
        assert base.predicts(3.0)
        staging = os.path.join(base.path, 'tmp-2')
        abort_in_initialiser(staging)
        os.rename(staging, base.place(2))
        base.server.wait_for_log('loading it ended a process on trial by signal 6 (Aborted)')
        wait_for('it is shown', lambda: base.server.versions('half').get(2) == 'END')
        assert 'signal 6' in base.server.ask('/v1/models/half/versions/2')[1]
        assert base.predicts(3.0)
        base.publish(3, source=2)
        wait_for('version 3 answers', lambda: base.predicts(4.0))


def test_version_that_crashes_its_load_at_the_start_is_tried_where_asked_for():
    """With --trial_loads=all a server starts beside such a version, and serves the one below."""
    with Base('--trial_loads=all', '--max_num_load_retries=0', wait=False) as base:
        abort_in_initialiser(base.place(2))
        base.server.wait_until_up()
        wait_for('version 1 answers', lambda: base.predicts(3.0))
        assert 'signal 6' in base.server.ask('/v1/models/half/versions/2')[1]


def test_version_that_is_too_large_fails_and_harms_nobody():
    """A version that needs more memory than there is: the server names it, and goes on with the one before;
    with memory for it, it is loaded."""
    import resource
    import tensorflow as tf
    v1 = tf.compat.v1
    with Base('--load_retry_interval_micros=1000000') as base:
        assert base.predicts(3.0)
        staging = os.path.join(base.path, 'tmp-2')
        with v1.Graph().as_default(), v1.Session() as session:
            x = v1.placeholder(tf.float32, [None], name='x')
            info = v1.saved_model.utils.build_tensor_info
            signature = v1.saved_model.signature_def_utils.build_signature_def(
                {'x': info(x)}, {'y': info(x * 2)}, 'tensorflow/serving/predict')
            builder = v1.saved_model.Builder(staging)
            # 1.6 GB, of which one page is ever touched
            large = tf.raw_ops.Empty(shape=v1.placeholder_with_default([400_000_000], [1]), dtype=tf.float32)
            builder.add_meta_graph_and_variables(session, ['serve'], {'serving_default': signature},
                                                 main_op=tf.group(large))
            builder.save()
        status = open(f'/proc/{base.server.process.pid}/status').read()
        size = int(status.split('VmSize:')[1].split()[0]) << 10
        unlimited = resource.prlimit(base.server.process.pid, resource.RLIMIT_AS)
        resource.prlimit(base.server.process.pid, resource.RLIMIT_AS, (size + (800 << 20), unlimited[1]))
        os.rename(staging, base.place(2))
        base.server.wait_for_log('OOM when allocating tensor with shape[400000000]')
        wait_for('it is shown', lambda: 'OOM' in base.server.ask('/v1/models/half/versions/2')[1])
        assert base.predicts(3.0)
        resource.prlimit(base.server.process.pid, resource.RLIMIT_AS, unlimited)
        wait_for('version 2 answers', lambda: base.predicts(4.0))


def test_loads_stand_back_for_requests():
    """Once a version serves, the threads that load run at low priority; those that answer do not."""
    with Base() as base:
        nice = lambda: [int(open(f'/proc/{base.server.process.pid}/task/{task}/stat').read().rsplit(')', 1)[1].split()[16])
                        for task in os.listdir(f'/proc/{base.server.process.pid}/task')]
        assert set(nice()) == {0}, nice()
        base.publish(2)
        wait_for('version 2 answers', lambda: base.predicts(4.0))
        assert nice().count(10) >= 1 and nice().count(0) > nice().count(10), nice()


def test_memory_comes_back_after_unloading():
    """Of a model of 16 MB that is loaded and unloaded twenty times not one copy is left over."""
    import tensorflow as tf
    with Base('--trial_loads=off') as base:
        where, module = os.path.join(base.path, 'large'), tf.Module()
        module.large = tf.Variable(tf.random.uniform([4 << 20]))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name='x')])
        def add(x):
            return {'y': x + module.large[0]}
        module.add = add
        tf.saved_model.save(module, os.path.join(where, '1'), signatures={'serving_default': add})
        resident = lambda: int(open(f'/proc/{base.server.process.pid}/status').read().split('VmRSS:')[1].split()[0]) >> 10
        sizes = []
        for _ in range(20):
            status, text = base.server.ask('/v2/repository/models/large/load', {'parameters': {'base_path': where}})
            assert status == 200, text
            assert base.server.ask('/v2/repository/models/large/unload', {})[0] == 200
            wait_for('it is gone', lambda: base.server.versions('large') == {})
            sizes.append(resident())
        assert max(sizes[10:]) - min(sizes[4:10]) < 12, sizes


def test_unknown_operation_fails_its_version_only():
    """A graph with an operation that this TensorFlow does not have is refused with its name."""
    with Base() as base:
        staging = os.path.join(base.path, 'tmp-2')
        shutil.copytree(os.path.join(HALF, '00000002'), staging)
        path = os.path.join(staging, 'saved_model.pb')
        graph = open(path, 'rb').read()
        assert b'AddV2' in graph
        with open(path, 'wb') as f:
            f.write(graph.replace(b'AddV2', b'AddV9'))
        os.rename(staging, base.place(2))
        base.server.wait_for_log("Op type not registered 'AddV9'")
        assert base.predicts(3.0)


def test_each_model_is_on_its_own():
    """Beside a model that cannot be loaded and one that is not there, a third serves; readiness names the
    two and why, and falls away from each as it is put right."""
    path = tempfile.mkdtemp(prefix='serving_base.')
    os.makedirs(os.path.join(path, 'bad', '1'))
    with open(os.path.join(path, 'bad', '1', 'saved_model.pb'), 'wb') as f:
        f.write(b'not a graph')
    config = os.path.join(path, 'config')
    with open(config, 'w') as f:
        f.write('model_config_list {' + ''.join(
            f' config {{ name: "{name}" base_path: "{base}" model_platform: "tensorflow" }}'
            for name, base in (('half', HALF), ('bad', f'{path}/bad'), ('later', f'{path}/later'))) + '}')
    with Server(ARGS.build, f'--model_config_file={config}') as server:
        not_ready = lambda: set(json.loads(server.ask('/v2/health/ready')[1])['not_ready'])
        assert server.predict('half', [2.0]) == [4.0]
        assert server.ask('/v2/health/ready')[0] == 503 and not_ready() == {'bad', 'later'}
        assert 'not a whole graph' in server.ask('/v2/health/ready')[1]
        shutil.copytree(os.path.join(HALF, '00000001'), os.path.join(path, 'later', '1'))
        wait_for('the later one', lambda: not_ready() == {'bad'})
        shutil.copytree(os.path.join(HALF, '00000001'), os.path.join(path, 'bad', '2'))
        wait_for('the bad one', lambda: not_ready() == set())
        assert server.ask('/v2/health/ready')[0] == 200
    shutil.rmtree(path)


def test_links_are_followed_and_what_is_no_file_is_refused():
    """A version may be a link to a directory elsewhere. Pipes, devices, links to nowhere and directories
    that hold themselves are named and hold up nobody."""
    with Base() as base:
        elsewhere = tempfile.mkdtemp(prefix='serving_elsewhere.')
        shutil.copytree(os.path.join(HALF, '00000002'), os.path.join(elsewhere, 'two'))
        os.symlink('..', os.path.join(elsewhere, 'two', 'self'))
        os.symlink(os.path.join(elsewhere, 'two'), base.place(2))
        wait_for('the link answers', lambda: base.predicts(4.0))

        def version(number, make, says):
            staging = os.path.join(base.path, f'tmp-{number}')
            shutil.copytree(os.path.join(HALF, '00000001'), staging)
            make(staging)
            os.rename(staging, base.place(number))
            base.server.wait_for_log(says)
            assert base.predicts(4.0)
            shutil.rmtree(base.place(number))

        def instead(name, make):
            def do(staging):
                os.remove(os.path.join(staging, name))
                make(os.path.join(staging, name))
            return do
        graph, shard = 'saved_model.pb', 'variables/variables.data-00000-of-00001'
        version(3, instead(graph, os.mkfifo), f'00000003/{graph}: neither a file nor a directory')
        version(4, instead(graph, lambda p: os.symlink('/dev/zero', p)),
                f'00000004/{graph}: neither a file nor a directory')
        version(5, instead(shard, lambda p: os.symlink('/nowhere', p)), f'00000005/{shard}: missing')
        version(6, instead(graph, lambda p: os.symlink(p, p)), f'00000006/{graph}')
        os.symlink(base.path, base.place(7))
        base.server.wait_for_log('version 7 is not complete')
        os.symlink('/', base.place(8))
        base.server.wait_for_log('version 8')
        base.publish(9, source=1)
        wait_for('version 9 answers', lambda: base.predicts(3.0))
        shutil.rmtree(elsewhere)


def test_warm_up_without_end_holds_up_no_other_and_no_exit():
    """A version whose warm-up never ends: the version before it serves, another model's versions are taken
    up, and SIGTERM ends the server."""
    import tensorflow as tf
    with Base('--drain_timeout_ms=1000') as base:
        module = tf.Module()

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name='x')])
        def endless(x):
            return {'y': tf.while_loop(lambda y: tf.reduce_sum(y) < 1e9, lambda y: [y * 1.0], [x])[0]}
        module.endless = endless
        staging = os.path.join(base.path, 'tmp-2')
        tf.saved_model.save(module, staging, signatures={'serving_default': endless})
        os.rename(staging, base.place(2))
        base.server.wait_for_log('loading version 2')
        assert base.predicts(3.0)
        base.publish(3, source=2)
        wait_for('version 3 answers', lambda: base.predicts(4.0))
        assert base.server.terminate() == 0


harness.run([f for name, f in list(globals().items()) if name.startswith('test_')])
