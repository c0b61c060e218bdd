"""What each flag does, where no other test of the model server needs the flag for its own sake."""
import json, os, shutil, sys, tempfile, threading
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import Server, wait_for

ARGS = harness.arguments()
MODELS = harness.models(ARGS.build)
HALF = os.path.join(MODELS, 'half')  # version 2: x/2 + 3
MODEL = ('--model_name=half', f'--model_base_path={HALF}')
WORK = tempfile.mkdtemp(prefix='serving_flags.')


def file(text, name='file'):
    path = os.path.join(tempfile.mkdtemp(dir=WORK), name)
    with open(path, 'w') as f:
        f.write(text)
    return path


def predict(server, model='half', value=2.0, signature='', size=1):
    """The response, or the error."""
    import grpc
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    request.inputs['x'].dtype = 1
    request.inputs['x'].tensor_shape.dim.add(size=size)
    request.inputs['x'].float_val.extend([value] * size)
    try:
        return prediction_service_pb2_grpc.PredictionServiceStub(server.channel()).Predict(request, timeout=20)
    except grpc.RpcError as error:
        return error


def odd_model():
    """Base path of a model of signatures that few have: methods of another name, one that runs as long as its
    input says, an output that is ragged; tagged "a" and "b"."""
    path = os.path.join(WORK, 'odd')
    if os.path.exists(path):
        return path
    import tensorflow as tf
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], name='x')
        long = tf.while_loop(lambda i: i < x[0], lambda i: i + 1.0, [tf.constant(0.0)])
        serialized = v1.placeholder(tf.string, [None], name='examples')
        scores = tf.cast(tf.strings.length(serialized), tf.float32)[:, None]
        ragged = tf.RaggedTensor.from_row_splits(x, [0, 1])
        info = v1.saved_model.utils.build_tensor_info
        signature = lambda i, o, method: v1.saved_model.signature_def_utils.build_signature_def(
            {k: info(t) for k, t in i.items()}, {k: info(t) for k, t in o.items()}, method)
        builder = v1.saved_model.Builder(os.path.join(path, '1'))
        builder.add_meta_graph_and_variables(session, ['a', 'b'], {
            'serving_default': signature({'x': x}, {'y': x * 2}, 'tensorflow/serving/predict'),
            'other': signature({'x': x}, {'y': x * 2}, 'tensorflow/serving/other'),
            'long': signature({'x': x}, {'y': tf.reshape(long, [1])}, 'tensorflow/serving/predict'),
            'regress': signature({'inputs': serialized}, {'outputs': scores}, 'tensorflow/serving/predict'),
            'ragged': signature({'x': x}, {'y': ragged}, 'tensorflow/serving/predict')})
        builder.save()
    return path


LONG = {'signature_name': 'long', 'instances': [1e6]}  # a second and more
ODD = ('--model_name=odd', '--saved_model_tags=a,b')


def threads(server):
    return len(os.listdir(f'/proc/{server.process.pid}/task'))


def test_saved_model_tags_choose_the_graph():
    """The graph with exactly these tags is served; without one of them there is none."""
    base = f'--model_base_path={odd_model()}'
    with Server(ARGS.build, *ODD, base) as server:
        assert server.predict('odd', [2.0]) == [4.0]
    with Server(ARGS.build, '--model_name=odd', base, '--saved_model_tags=a') as server:
        server.wait_for_log('{ a }')
        assert server.versions('odd') == {1: 'END'}


def test_a_ragged_output_is_refused_by_name_and_harms_no_other_signature():
    """TensorFlow has no tensor for it: its signature answers with an error, the others are served."""
    with Server(ARGS.build, *ODD, f'--model_base_path={odd_model()}') as server:
        status, text = server.ask('/v1/models/odd:predict', {'signature_name': 'ragged', 'instances': [1.0]})
        assert status >= 400 and json.loads(text)['error'], text
        assert predict(server, 'odd', signature='ragged').details()
        assert server.predict('odd', [2.0]) == [4.0]
        assert server.ask('/v1/models/odd/metadata')[0] == 200


def test_signature_method_names_are_checked_where_asked_for():
    """With the flag Predict and Regress refuse a signature of another method, in the original's words;
    without it they answer."""
    examples = {'signature_name': 'regress', 'examples': [{'x': 1.0}]}
    other = {'signature_name': 'other', 'instances': [2.0]}
    base = f'--model_base_path={odd_model()}'
    with Server(ARGS.build, *ODD, base) as server:
        assert json.loads(server.ask('/v1/models/odd:predict', other)[1]) == {'predictions': [4.0]}
        assert predict(server, 'odd', signature='other').outputs['y'].float_val[0] == 4.0
        assert server.ask('/v1/models/odd:regress', examples)[0] == 200
    with Server(ARGS.build, *ODD, base, '--enable_signature_method_name_check') as server:
        says = ('Expected prediction signature method_name to be one of {tensorflow/serving/predict, '
                'tensorflow/serving/classify, tensorflow/serving/regress}. Was: tensorflow/serving/other')
        assert server.ask('/v1/models/odd:predict', other) == (500, json.dumps({'error': says}, indent=4))
        error = predict(server, 'odd', signature='other')
        assert (error.code().name, error.details()) == ('INTERNAL', says)
        status, text = server.ask('/v1/models/odd:regress', examples)
        assert status == 400 and json.loads(text)['error'] == (
            'Expected regression signature method_name to be tensorflow/serving/regress. '
            'Was: tensorflow/serving/predict'), text
        assert server.predict('odd', [2.0]) == [4.0]


def test_rest_requests_end_at_their_timeout():
    """A run that takes longer than --rest_api_timeout_in_ms is answered with 504; quick ones as ever."""
    with Server(ARGS.build, *ODD, f'--model_base_path={odd_model()}', '--rest_api_timeout_in_ms=100') as server:
        status, text = server.ask('/v1/models/odd:predict', LONG)
        assert status == 504 and 'deadline' in text, (status, text)
        assert server.predict('odd', [2.0]) == [4.0]


def test_runs_that_take_long_keep_no_thread_of_rest():
    """While three long runs are under way over REST's only thread, others are answered."""
    with Server(ARGS.build, *ODD, f'--model_base_path={odd_model()}', '--rest_api_num_threads=1') as server:
        long = lambda: server.ask('/v1/models/odd:predict', LONG)
        assert long()[0] == 200  # from now on it is known to take long
        runs = [threading.Thread(target=long) for _ in range(3)]
        for run in runs:
            run.start()
        while not all(run.is_alive() for run in runs):
            pass
        for _ in range(20):
            assert server.ask('/v2/health/live')[0] == 200
        assert any(run.is_alive() for run in runs), 'it was answered after the runs'
        for run in runs:
            run.join()


def test_outputs_are_tensor_content_where_asked_for():
    """Typed values by default, bytes with the flag; the values are the same."""
    import tensorflow as tf
    for flag, content in (((), False), (('--enable_serialization_as_tensor_content',), True)):
        with Server(ARGS.build, *MODEL, *flag) as server:
            output = predict(server).outputs['y']
            assert bool(output.tensor_content) == content and bool(output.float_val) != content, output
            assert tf.make_ndarray(output).tolist() == [4.0]


def test_grpc_channel_arguments():
    """The largest message is as said; what has no meaning here is named; what is no argument stops the start."""
    limit = '--grpc_channel_arguments=grpc.max_receive_message_length=1000,grpc.http2.bdp_probe=1'
    with Server(ARGS.build, *MODEL, limit) as server:
        assert predict(server).outputs['y'].float_val[0] == 4.0
        error = predict(server, size=1000)
        assert error.code().name == 'RESOURCE_EXHAUSTED', error
        server.wait_for_log('grpc.http2.bdp_probe has no meaning here')
    with Server(ARGS.build, *MODEL, '--grpc_channel_arguments=x', wait=False) as server:
        assert server.process.wait(60) == 1
        server.wait_for_log('--grpc_channel_arguments: expected key=value, got "x"')


def test_a_poll_of_zero_looks_once_and_a_reload_looks_again():
    """With --file_system_poll_wait_seconds=0 a version that comes later is left alone until a reload; below
    zero not even a base path that comes later is seen."""
    base = os.path.join(WORK, 'polled')
    shutil.copytree(os.path.join(HALF, '00000001'), os.path.join(base, '1'))
    with Server(ARGS.build, '--model_name=half', f'--model_base_path={base}',
                '--file_system_poll_wait_seconds=0') as server:
        shutil.copytree(os.path.join(HALF, '00000002'), os.path.join(base, '2'))
        # Another model, added now, has been looked at and loaded: so much time has passed.
        other = {'parameters': {'base_path': os.path.join(MODELS, 'shapes')}}
        assert server.ask('/v2/repository/models/shapes/load', other)[0] == 200
        assert server.versions('shapes') == {1: 'AVAILABLE'}
        wait_for('a reload finds it', lambda: server.ask(
            '/v2/repository/models/half/load', {})[0] == 200 and server.predict('half', [2.0]) == [4.0])


def test_warm_up_runs_are_repeated_as_often_as_said():
    """--num_request_iterations_for_warmup times each warm-up request is run."""
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2
    base = os.path.join(WORK, 'warm')
    shutil.copytree(os.path.join(HALF, '00000002'), os.path.join(base, '1'))
    os.makedirs(os.path.join(base, '1', 'assets.extra'))
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.inputs['x'].CopyFrom(tf.make_tensor_proto([2.0]))
    with tf.io.TFRecordWriter(os.path.join(base, '1', 'assets.extra', 'tf_serving_warmup_requests')) as writer:
        writer.write(log.SerializeToString())
    runs = {}
    for times in (0, 1, 11):
        with Server(ARGS.build, '--model_name=warm', f'--model_base_path={base}', '--monitoring_config_file=' +
                    file('prometheus_config { enable: true }'), f'--num_request_iterations_for_warmup={times}') as server:
            text = server.ask('/monitoring/prometheus/metrics')[1]
            name = 'takt_serving_runs_total{model="warm",version="1",signature="serving_default"}'
            runs[times] = next(float(line.rsplit(' ', 1)[1]) for line in text.splitlines() if line.startswith(name))
    assert runs[0] == runs[1] and runs[11] == runs[1] + 10, runs


def test_threads_of_tensorflow_are_as_many_as_said():
    """Inter- and intra-op threads by their flags, by the one for both, and by a session's configuration; a
    configuration that is none stops the start."""
    session = lambda text: '--tensorflow_session_config_file=' + file(text)

    def count(*flags):
        with Server(ARGS.build, *MODEL, *flags) as server:
            assert server.predict('half', [2.0]) == [4.0]
            return threads(server)
    few = count('--tensorflow_inter_op_parallelism=1', '--tensorflow_intra_op_parallelism=1')
    assert count('--tensorflow_inter_op_parallelism=9', '--tensorflow_intra_op_parallelism=1') >= few + 8
    assert count('--tensorflow_inter_op_parallelism=1', '--tensorflow_intra_op_parallelism=9') >= few + 8
    assert count('--tensorflow_session_parallelism=9') >= few + 16
    assert count(session('inter_op_parallelism_threads: 9 intra_op_parallelism_threads: 1')) >= few + 8
    with Server(ARGS.build, *MODEL, session('threads: 9'), wait=False) as server:
        assert server.process.wait(60) == 1
        server.wait_for_log('Error parsing text-format tensorflow.ConfigProto')


def test_loops_and_threads_of_the_server_are_as_many_as_said():
    """--event_loop_threads and --rest_api_num_threads: each request is answered with one and with several."""
    def count(*flags):
        with Server(ARGS.build, *MODEL, *flags) as server:
            assert server.predict('half', [2.0]) == [4.0]
            assert predict(server).outputs['y'].float_val[0] == 4.0
            return threads(server)
    one = count('--event_loop_threads=1', '--rest_api_num_threads=1', '--num_load_threads=1')
    assert count('--event_loop_threads=7', '--rest_api_num_threads=1', '--num_load_threads=1') == one + 6
    assert count('--event_loop_threads=1', '--rest_api_num_threads=4', '--num_load_threads=1') == one + 3
    assert count('--event_loop_threads=1', '--rest_api_num_threads=1', '--num_load_threads=5') == one + 4


def test_compilers_and_precision_change_no_answer():
    """XLA on CPU and GPU, mixed precision, a part of the GPU's memory: accepted, and the model answers."""
    with Server(ARGS.build, *MODEL, '--xla_cpu_compilation_enabled', '--xla_gpu_compilation_enabled',
                '--mixed_precision=bfloat16', '--per_process_gpu_memory_fraction=0.5') as server:
        assert server.predict('half', [2.0, 4.0]) == [4.0, 5.0]


def test_flags_without_a_meaning_are_accepted_and_named():
    """Each is named once in the log with its reason; the server serves."""
    flags = {'use_alts_credentials': 'true', 'enable_profiler': 'false', 'num_unload_threads': '3',
             'flush_filesystem_caches': 'false', 'remove_unused_fields_from_bundle_metagraph': 'false',
             'thread_pool_factory_config_file': '/not/there', 'skip_initialize_tpu': 'true',
             'prefer_tflite_model': 'true', 'num_tflite_pools': '2', 'num_tflite_interpreters_per_pool': '2',
             'grpc_max_threads': '1'}
    with Server(ARGS.build, *MODEL, *(f'--{name}={value}' for name, value in flags.items())) as server:
        assert server.predict('half', [2.0]) == [4.0]
        for name in flags:
            assert server.log().count(f'--{name} has no meaning here: ') == 1, name


def test_version_is_printed_and_ends():
    """--version says what it is and starts nothing."""
    with Server(ARGS.build, '--version', wait=False) as server:
        assert server.process.wait(60) == 0
        server.wait_for_log('TensorFlow ModelServer: takt-serving ')


def test_profiler_says_that_it_is_not_there():
    """ProfilerService is named as a difference: UNIMPLEMENTED, not silence."""
    import grpc
    with Server(ARGS.build, *MODEL) as server:
        call = server.channel().unary_unary('/tensorflow.ProfilerService/Profile',
                                            request_serializer=lambda b: b, response_deserializer=lambda b: b)
        try:
            call(b'', timeout=20)
            raise AssertionError('it answers')
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error


def test_automatic_batching_has_a_latency_target():
    """--batching=auto with a target of its own answers many at once."""
    from concurrent.futures import ThreadPoolExecutor
    with Server(ARGS.build, *MODEL, '--batching=auto', '--batching_latency_target_micros=500') as server:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda i: server.predict('half', [float(i)]), range(64)))
        assert answers == [[i / 2 + 3] for i in range(64)]


try:
    harness.run([f for name, f in list(globals().items()) if name.startswith('test_')])
finally:
    shutil.rmtree(WORK, ignore_errors=True)
