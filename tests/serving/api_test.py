"""The calls around Predict, asked by stock clients: health, reflection, metrics, metadata, bodies that are
compressed or hostile, CORS, TLS, request logs and warm-up."""
import base64, gzip, http.client, json, os, shutil, socket, ssl, struct, subprocess, sys, tempfile
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import Server, wait_for

ARGS = harness.arguments()
MODELS = harness.models(ARGS.build)
HALF = os.path.join(MODELS, 'half')  # version 2: x/2 + 3
WORK = tempfile.mkdtemp(prefix='serving_api.')
MODEL = ('--model_name=half', f'--model_base_path={HALF}')


def file(text, name='file'):
    path = os.path.join(tempfile.mkdtemp(dir=WORK), name)
    with open(path, 'w') as f:
        f.write(text)
    return path


def predict_request(value=2.0, model='half'):
    from tensorflow_serving.apis import predict_pb2
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.inputs['x'].dtype = 1
    request.inputs['x'].tensor_shape.dim.add(size=1)
    request.inputs['x'].float_val.append(value)
    return request


def unary(channel, method, message=b''):
    return channel.unary_unary(method, request_serializer=lambda b: b, response_deserializer=lambda b: b)(
        message, timeout=20)


def message(number, content):
    return bytes([number << 3 | 2, len(content)]) + content


def field(number, text):
    return message(number, text.encode())


def test_health_is_told_for_the_server_and_each_model():
    """grpc.health.v1 answers SERVING for the server and a model that serves, NOT_SERVING for one that does
    not, NOT_FOUND for a name that nobody knows; a watcher hears of the change."""
    import grpc
    later = os.path.join(WORK, 'later')
    config = file('model_config_list { '
                  f'config {{ name: "half" base_path: "{HALF}" model_platform: "tensorflow" }} '
                  f'config {{ name: "later" base_path: "{later}" model_platform: "tensorflow" }} }}')
    with Server(ARGS.build, f'--model_config_file={config}', '--enable_grpc_healthcheck_service') as server:
        channel = server.channel()
        serving, not_serving = b'\x08\x01', b'\x08\x02'
        check = lambda name: unary(channel, '/grpc.health.v1.Health/Check', field(1, name) if name else b'')
        assert check('half') == serving
        assert check('later') == not_serving
        assert check('') == not_serving
        try:
            check('nobody')
            raise AssertionError('a name that nobody knows is healthy')
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND
        watch = channel.unary_stream('/grpc.health.v1.Health/Watch', request_serializer=lambda b: b,
                                     response_deserializer=lambda b: b)(field(1, 'later'), timeout=60)
        assert next(watch) == not_serving
        shutil.copytree(os.path.join(HALF, '00000001'), os.path.join(later, '1'))
        assert next(watch) == serving
        watch.cancel()
        assert check('') == serving


def test_reflection_describes_the_services():
    """A client that knows nothing lists the services and gets the file that defines Predict, with all its
    imports."""
    from google.protobuf import descriptor_pb2, descriptor_pool
    with Server(ARGS.build, *MODEL) as server:
        for version in ('v1', 'v1alpha'):
            call = server.channel().stream_stream(
                f'/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo',
                request_serializer=lambda b: b, response_deserializer=lambda b: b)
            services, symbol = call(iter([field(7, '*'),
                                          field(4, 'tensorflow.serving.PredictionService.Predict')]),
                                    timeout=20)
            assert b'tensorflow.serving.PredictionService' in services
            files = {}
            for number, response in fields(symbol):
                if number == 4:  # file_descriptor_response
                    for _, proto in fields(response):
                        proto = descriptor_pb2.FileDescriptorProto.FromString(proto)
                        files[proto.name] = proto
            pool, added = descriptor_pool.DescriptorPool(), set()

            def add(name):
                if name in added:
                    return
                added.add(name)
                for dependency in files[name].dependency:
                    add(dependency)
                pool.Add(files[name])
            add('tensorflow_serving/apis/prediction_service.proto')
            service = pool.FindServiceByName('tensorflow.serving.PredictionService')
            assert service.methods_by_name['Predict'].input_type.fields_by_name['inputs']


def fields(message):
    """(number, bytes) of a message whose fields are all length-delimited."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
    while at < len(message):
        number, size = varint() >> 3, varint()
        yield number, message[at:at + size]
        at += size


def test_metrics_have_the_originals_names_and_ours():
    """Requests over gRPC and REST, good and bad, are counted under TensorFlow Serving's names and, per
    version and signature, under ours; the exposition parses."""
    from tensorflow_serving.apis import prediction_service_pb2_grpc
    import grpc
    config = file('prometheus_config { enable: true path: "/metrics" }')
    with Server(ARGS.build, *MODEL, f'--monitoring_config_file={config}') as server:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(server.channel())
        for _ in range(3):
            stub.Predict(predict_request(), timeout=20)
        try:
            stub.Predict(predict_request(model='no"body'), timeout=20)
        except grpc.RpcError:
            pass
        assert server.predict('half', [2.0]) == [4.0]
        assert server.predict('half', ['x']) != [4.0]
        status, text = server.ask('/metrics')
        assert status == 200
        values = {}
        for line in text.splitlines():
            if not line.startswith('#'):
                name, value = line.rsplit(' ', 1)
                assert name not in values, name
                values[name] = float(value)
        for name, want in (
                (':tensorflow:serving:request_count{model_name="half",status="OK"}', 4),
                (':tensorflow:serving:request_count{model_name="half",status="INVALID_ARGUMENT"}', 1),
                (r':tensorflow:serving:request_count{model_name="no\"body",status="NOT_FOUND"}', 1),
                (':tensorflow:serving:request_latency_count{model_name="half",API="predict",entrypoint="GRPC"}', 3),
                (':tensorflow:serving:request_latency_bucket{model_name="half",API="predict",entrypoint="GRPC",le="+Inf"}', 3),
                ('takt_serving_requests_total{model="half",version="2",signature="serving_default",api="predict",entrypoint="GRPC",code="OK"}', 3),
                ('takt_serving_version_state{model="half",version="2"}', 30),
                ('takt_serving_ready', 1),
                ('takt_serving_load_seconds_count{model="half",code="OK"}', 1)):
            assert values.get(name) == want, (name, values.get(name),
                                              [n for n in values if n.startswith(name[:40])][:8])
    with Server(ARGS.build, *MODEL) as server:
        assert server.ask('/monitoring/prometheus/metrics')[0] == 404
        assert gets(server.grpc, '/monitoring/prometheus/metrics') == b''


def gets(port, path):
    """What a plain HTTP/1.1 GET has for an answer, up to the end of the connection."""
    with socket.create_connection(('127.0.0.1', port), 20) as connection:
        connection.sendall(f'GET {path} HTTP/1.1\r\nHost: x\r\n\r\n'.encode())
        answer = b''
        while part := connection.recv(65536):
            answer += part
    return answer if answer.startswith(b'HTTP/1.1') else b''


def test_metrics_are_on_where_takt_runs_the_server():
    """As an instance of Takt the server has its metrics on both ports without a flag; a flag decides
    where there is one."""
    env, path = {'TAKT_INSTANCE': 'a.b.1.c'}, '/monitoring/prometheus/metrics'
    with Server(ARGS.build, *MODEL, env=env) as server:
        assert server.predict('half', [2.0]) == [4.0]
        counted = 'takt_serving_requests_total{model="half",version="2"'
        assert counted in server.ask(path)[1]
        assert gets(server.grpc, path).startswith(b'HTTP/1.1 200 OK\r\n')
        assert counted.encode() in gets(server.grpc, path)
        assert gets(server.grpc, '/other').startswith(b'HTTP/1.1 404 Not Found\r\n')
    off = file('prometheus_config { enable: false }')
    with Server(ARGS.build, *MODEL, f'--monitoring_config_file={off}', env=env) as server:
        assert server.ask(path)[0] == 404
        assert gets(server.grpc, path) == b''


def test_time_in_a_batching_queue_is_told_for_every_way_to_ask():
    """With batching, REST, V2 and the calls for examples have their queue time in the metrics, as Predict
    has."""
    from tensorflow_serving.apis import prediction_service_pb2_grpc, regression_pb2
    parameters = file('max_batch_size { value: 8 } batch_timeout_micros { value: 2000 }')
    with Server(ARGS.build, *MODEL, '--enable_batching', f'--batching_parameters_file={parameters}',
                env={'TAKT_INSTANCE': 'a.b.1.c'}) as server:
        assert server.predict('half', [2.0]) == [4.0]
        examples = {'signature_name': 'regress', 'examples': [{'x': 1.0}]}
        assert server.ask('/v1/models/half:regress', examples)[0] == 200
        request = regression_pb2.RegressionRequest()
        request.model_spec.name, request.model_spec.signature_name = 'half', 'regress'
        request.input.example_list.examples.add().features.feature['x'].float_list.value.append(1.0)
        stub = prediction_service_pb2_grpc.PredictionServiceStub(server.channel())
        stub.Regress(request, timeout=20)
        stub.Predict(predict_request(), timeout=20)
        text = server.ask('/monitoring/prometheus/metrics')[1]
        sums = [line for line in text.splitlines() if line.startswith('takt_serving_queue_seconds_sum')]
        # predict and regress, over each of the two ports
        assert len(sums) == 4, sums
        assert all(float(line.rsplit(' ', 1)[1]) > 0 for line in sums), sums


def test_runs_and_their_rows_are_counted_for_each_signature():
    """Rows by runs is the mean batch size, per model, version and signature."""
    with Server(ARGS.build, *MODEL, env={'TAKT_INSTANCE': 'a.b.1.c'}) as server:
        def count(what):
            name = f'takt_serving_{what}_total{{model="half",version="2",signature="serving_default"}}'
            text = server.ask('/monitoring/prometheus/metrics')[1]
            return next(float(line.rsplit(' ', 1)[1]) for line in text.splitlines() if line.startswith(name))
        runs, rows = count('runs'), count('run_rows')
        server.ask('/v1/models/half:predict', {'instances': [1.0, 2.0, 3.0]})
        assert (count('runs'), count('run_rows')) == (runs + 1, rows + 3)


def test_bodies_may_be_compressed():
    """A gzip body is read; an answer is gzip where the client asks and it pays."""
    with Server(ARGS.build, *MODEL) as server:
        body = gzip.compress(json.dumps({'instances': [2.0] * 1000}).encode())
        connection = http.client.HTTPConnection('127.0.0.1', server.rest, timeout=20)
        connection.request('POST', '/v1/models/half:predict', body,
                           {'Content-Encoding': 'gzip', 'Accept-Encoding': 'gzip'})
        response = connection.getresponse()
        assert response.getheader('content-encoding') == 'gzip'
        assert json.loads(gzip.decompress(response.read())) == {'predictions': [4.0] * 1000}
        status, text = server.ask('/v1/models/half:predict', b'not gzip', {'Content-Encoding': 'gzip'})
        assert status == 400 and 'gzip' in text, text


def test_hostile_bodies_are_refused_and_the_rest_goes_on():
    """A zip bomb, a million brackets, invalid UTF-8, an answerless verb: each gets a 4xx, and the next
    request is answered."""
    bomb = gzip.compress(bytes(101 << 20), 9)
    with Server(ARGS.build, *MODEL) as server:
        for body, headers, want in (
                (bomb, {'Content-Encoding': 'gzip'}, 'inflates to more than'),
                (b'[' * 1000000, {}, 'Nested too deeply'),
                (b'{"instances": ' + b'[' * 600 + b']' * 600 + b'}', {}, 'Nested too deeply'),
                (b'\xff\xfe{"instances"', {}, 'JSON Parse error'),
                (b'{"instances": [' + b'1,' * 100000, {}, 'JSON Parse error')):
            status, text = server.ask('/v1/models/half:predict', body, headers)
            assert status == 400 and want in text, (body[:20], status, text[:200])
            assert server.predict('half', [2.0]) == [4.0]


def test_a_byte_order_mark_is_no_error():
    """Some editors begin a file with one; the original takes it."""
    with Server(ARGS.build, *MODEL) as server:
        status, text = server.ask('/v1/models/half:predict', b'\xef\xbb\xbf{"instances": [2.0]}')
        assert (status, json.loads(text)) == (200, {'predictions': [4.0]}), text


def test_cors_only_when_asked_for():
    """With the flag pages of other origins may call, without it they may not."""
    def allowed(*flags):
        with Server(ARGS.build, *MODEL, *flags) as server:
            connection = http.client.HTTPConnection('127.0.0.1', server.rest, timeout=20)
            connection.request('OPTIONS', '/v1/models/half:predict', headers={'Origin': 'http://a'})
            preflight = connection.getresponse()
            preflight.read()
            connection.request('GET', '/v1/models/half', headers={'Origin': 'http://a'})
            response = connection.getresponse()
            response.read()
            return preflight.status, response.getheader('access-control-allow-origin')
    assert allowed('--rest_api_enable_cors_support') == (200, '*')
    assert allowed() == (400, None)


def certificates():
    """An authority and two certificates of it, made with openssl."""
    where = tempfile.mkdtemp(dir=WORK)
    run = lambda *a: subprocess.run(['openssl', *a], cwd=where, check=True, capture_output=True)
    run('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2',
        '-subj', '/CN=ca', '-keyout', 'ca.key', '-out', 'ca.pem')
    with open(os.path.join(where, 'ext'), 'w') as f:
        f.write('subjectAltName=DNS:localhost,IP:127.0.0.1')
    for name in ('server', 'client'):
        run('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-subj',
            '/CN=localhost', '-keyout', f'{name}.key', '-out', f'{name}.csr')
        run('x509', '-req', '-in', f'{name}.csr', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial',
            '-days', '2', '-extfile', 'ext', '-out', f'{name}.pem')
    return {name: open(os.path.join(where, name)).read()
            for name in ('ca.pem', 'server.key', 'server.pem', 'client.key', 'client.pem')} | {'dir': where}


def test_tls_on_both_ports_and_clients_known_by_certificate():
    """With ssl_config_file both ports speak TLS, the metrics on gRPC's port too; with client_verify a client
    without a certificate of the authority is turned away on both."""
    import grpc
    from tensorflow_serving.apis import prediction_service_pb2_grpc
    pem = certificates()
    quote = lambda text: '"' + text.replace('\n', '\\n') + '"'
    for verify in (False, True):
        config = file(f'server_key: {quote(pem["server.key"])} server_cert: {quote(pem["server.pem"])} '
                      f'custom_ca: {quote(pem["ca.pem"])} client_verify: {str(verify).lower()}')
        with Server(ARGS.build, *MODEL, f'--ssl_config_file={config}',
                    env={'TAKT_INSTANCE': 'a.b.1.c'}) as server:
            def by_grpc(with_certificate):
                own = ((pem['client.key'].encode(), pem['client.pem'].encode()) if with_certificate
                       else (None, None))
                channel = grpc.secure_channel(f'localhost:{server.grpc}', grpc.ssl_channel_credentials(
                    pem['ca.pem'].encode(), *own))
                stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
                try:
                    return stub.Predict(predict_request(), timeout=10).outputs['y'].float_val[0]
                except grpc.RpcError as error:
                    return error.code().name
                finally:
                    channel.close()

            def by_rest(with_certificate):
                command = ['curl', '-s', '--cacert', 'ca.pem', '-d', '{"instances": [2.0]}',
                           f'https://localhost:{server.rest}/v1/models/half:predict']
                if with_certificate:
                    command += ['--key', 'client.key', '--cert', 'client.pem']
                done = subprocess.run(command, cwd=pem['dir'], capture_output=True, text=True, timeout=30)
                return json.loads(done.stdout)['predictions'][0] if done.returncode == 0 else 'refused'
            assert by_grpc(True) == 4.0
            assert by_rest(True) == 4.0
            assert by_grpc(False) == ('UNAVAILABLE' if verify else 4.0), by_grpc(False)
            assert by_rest(False) == ('refused' if verify else 4.0)

            def metrics(*options):
                command = ['curl', '-s', '--cacert', 'ca.pem', *options,
                           f'https://localhost:{server.grpc}/monitoring/prometheus/metrics']
                return subprocess.run(command, cwd=pem['dir'], capture_output=True, text=True, timeout=30).stdout
            own = ('--key', 'client.key', '--cert', 'client.pem')
            assert 'takt_serving_requests_total' in metrics('--http1.1', *own)
            assert 'takt_serving_requests_total' in metrics('--no-alpn', *own)
            assert ('takt_serving_requests_total' in metrics('--http1.1')) != verify


def records(path):
    data, at = open(path, 'rb').read(), 0
    while at < len(data):
        size = struct.unpack_from('<Q', data, at)[0]
        yield data[at + 12:at + 12 + size]
        at += 16 + size


def test_request_log_is_what_warm_up_reads():
    """With a sampling rate of one each request is logged, over gRPC and REST; the log, put where warm-up
    requests lie, is replayed before the next server serves; with a rate of zero nothing is logged."""
    from tensorflow_serving.apis import (prediction_log_pb2, prediction_service_pb2_grpc, regression_pb2)
    prefix = os.path.join(WORK, 'requests')
    logged = lambda: [prediction_log_pb2.PredictionLog.FromString(r) for name in sorted(os.listdir(WORK))
                      if name.startswith('requests-') for r in records(os.path.join(WORK, name))]
    entry = lambda rate: file(
        f'model_config_list {{ config {{ name: "half" base_path: "{HALF}" model_platform: "tensorflow" '
        f'logging_config {{ log_collector_config {{ filename_prefix: "{prefix}" }} '
        f'sampling_config {{ sampling_rate: {rate} }} }} }} }}')
    with Server(ARGS.build, f'--model_config_file={entry(1)}') as server:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(server.channel())
        stub.Predict(predict_request(5.0), timeout=20)
        regress = regression_pb2.RegressionRequest()
        regress.model_spec.name, regress.model_spec.signature_name = 'half', 'regress'
        example = regress.input.example_list.examples.add()
        example.features.feature['x'].float_list.value.append(1.0)
        stub.Regress(regress, timeout=20)
        assert server.predict('half', [7.0]) == [6.5]
        wait_for('three records', lambda: len(logged()) == 3)
    logs = logged()
    assert [log.WhichOneof('log_type') for log in logs] == ['predict_log', 'regress_log', 'predict_log']
    assert logs[0].predict_log.request.inputs['x'].float_val[0] == 5.0
    assert logs[0].predict_log.response.outputs['y'].float_val[0] == 5.5
    assert logs[0].log_metadata.model_spec.version.value == 2
    assert logs[0].log_metadata.sampling_config.sampling_rate == 1.0
    assert logs[1].regress_log.response.result.regressions[0].value == 3.5

    log = [os.path.join(WORK, n) for n in os.listdir(WORK) if n.startswith('requests-')][0]
    warm = os.path.join(WORK, 'warm')
    shutil.copytree(os.path.join(HALF, '00000002'), os.path.join(warm, '1'))
    os.makedirs(os.path.join(warm, '1', 'assets.extra'))
    target = os.path.join(warm, '1', 'assets.extra', 'tf_serving_warmup_requests')
    shutil.copy(log, target)
    with Server(ARGS.build, '--model_name=half', f'--model_base_path={warm}') as server:
        assert server.predict('half', [2.0]) == [4.0]
    # A request that the model refuses fails the load; without warm-up it would serve.
    bad = prediction_log_pb2.PredictionLog()
    bad.predict_log.request.CopyFrom(predict_request())
    bad.predict_log.request.model_spec.signature_name = 'nothing'
    write_records(target, [bad.SerializeToString()])
    with Server(ARGS.build, '--model_name=half', f'--model_base_path={warm}') as server:
        server.wait_for_log('warm-up request 1')
        assert server.versions('half') == {1: 'END'}
    with Server(ARGS.build, '--model_name=half', f'--model_base_path={warm}',
                '--enable_model_warmup=false') as server:
        assert server.predict('half', [2.0]) == [4.0]
    write_records(target, [logs[0].SerializeToString()] * 1001)
    with Server(ARGS.build, '--model_name=half', f'--model_base_path={warm}') as server:
        server.wait_for_log('more than 1000 warm-up requests')
    for name in os.listdir(WORK):
        if name.startswith('requests-'):
            os.remove(os.path.join(WORK, name))
    with Server(ARGS.build, f'--model_config_file={entry(0)}') as server:
        assert server.predict('half', [2.0]) == [4.0]
        server.terminate()
    assert logged() == []
    # The other ways to ask are logged alike.
    with Server(ARGS.build, f'--model_config_file={entry(1)}') as server:
        examples = {'signature_name': 'regress', 'examples': [{'x': 1.0}]}
        assert json.loads(server.ask('/v1/models/half:regress', examples)[1]) == {'results': [3.5]}
        # A record is written behind its answer: the next one is asked for when it is there.
        wait_for('the first record', lambda: len(logged()) == 1)
        examples['signature_name'] = 'classify'
        assert server.ask('/v1/models/half:classify', examples)[0] == 200
        wait_for('the second record', lambda: len(logged()) == 2)
        tensor = {'name': 'x', 'datatype': 'FP32', 'shape': [1], 'data': [9.0]}
        assert server.ask('/v2/models/half/infer', {'inputs': [tensor]})[0] == 200
        wait_for('the third record', lambda: len(logged()) == 3)
        # model_name; inputs: name, datatype, shape, contents: fp32_contents
        infer = field(1, 'half') + message(5, field(1, 'x') + field(2, 'FP32') + message(3, b'\x01')
                                           + message(5, message(6, struct.pack('<f', 10.0))))
        unary(server.channel(), '/inference.GRPCInferenceService/ModelInfer', infer)
        wait_for('four records', lambda: len(logged()) == 4)
    logs = logged()
    assert logs[0].regress_log.response.result.regressions[0].value == 3.5
    assert logs[1].classify_log.request.input.example_list.examples[0]
    assert logs[1].classify_log.response.result.classifications[0].classes[0].label == 'low'
    for log, value in zip(logs[2:], (9.0, 10.0)):
        first = lambda tensor: struct.unpack('<f', tensor.tensor_content)[0]
        assert first(log.predict_log.request.inputs['x']) == value, log
        assert first(log.predict_log.response.outputs['y']) == value / 2 + 3
        assert log.predict_log.request.model_spec.signature_name == 'serving_default'


def test_inputs_with_a_default_may_be_left_out():
    """A signature whose function has a default value, as TensorFlow saves it: Predict, REST, V2 and warm-up
    requests may leave that input out; what is missing or unknown is named as the original does."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2, prediction_service_pb2_grpc
    where, module = os.path.join(WORK, 'times'), tf.Module()
    spec = lambda shape, name: tf.TensorSpec(shape, tf.float32, name=name)

    @tf.function(input_signature=[spec([None], 'x'), spec([], 'k')])
    def times(x, k=tf.constant(3.0)):
        return {'y': x * k}
    module.times = times
    tf.saved_model.save(module, os.path.join(where, '1'), signatures={'serving_default': times})
    with Server(ARGS.build, '--model_name=times', f'--model_base_path={where}') as server:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(server.channel())
        ask = lambda request: stub.Predict(request, timeout=20).outputs['y'].float_val[0]
        request = predict_request(2.0, 'times')
        assert ask(request) == 6.0
        request.inputs['k'].dtype = 1
        request.inputs['k'].float_val.append(5.0)
        assert ask(request) == 10.0
        for given, message in (
                (('k',), 'not found in request and no default value provided. Inputs expected to be in the '
                         'request {k}, or default input alias set: k'),
                (('x', 'z'), 'Inputs contains invalid name. Used request inputs: x, request input: x,z'),
                (('x', 'k', 'z'), 'input size does not match signature: 3!=2 len({k,x,z}) != len({k,x}). '
                                  'Sent extra: {z}. Missing but required: {}.')):
            wrong = predict_request(2.0, 'times')
            wrong.inputs['k'].CopyFrom(request.inputs['k'])
            wrong.inputs['z'].CopyFrom(request.inputs['k'])
            for name in {'x', 'k', 'z'} - set(given):
                del wrong.inputs[name]
            try:
                ask(wrong)
                raise AssertionError(f'{given} is answered')
            except grpc.RpcError as error:
                assert message in error.details(), error.details()
        rest = lambda body: json.loads(server.ask('/v1/models/times:predict', body)[1])
        assert rest({'instances': [2.0, 4.0]}) == {'predictions': [6.0, 12.0]}
        assert rest({'instances': [{'x': 2.0}]}) == {'predictions': [6.0]}
        assert rest({'inputs': {'x': [2.0], 'k': 5.0}}) == {'outputs': [10.0]}
        tensor = lambda name, value, *shape: {'name': name, 'datatype': 'FP32', 'shape': shape, 'data': [value]}
        v2 = lambda *inputs: json.loads(server.ask('/v2/models/times/infer', {'inputs': inputs})[1])
        assert v2(tensor('x', 2.0, 1))['outputs'][0]['data'] == [6.0]
        assert v2(tensor('x', 2.0, 1), tensor('k', 5.0))['outputs'][0]['data'] == [10.0]
        assert 'input \"x\": missing' in v2(tensor('k', 5.0))['error']
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(predict_request(2.0, 'times'))
    os.makedirs(os.path.join(where, '1', 'assets.extra'))
    write_records(os.path.join(where, '1', 'assets.extra', 'tf_serving_warmup_requests'), [log.SerializeToString()])
    with Server(ARGS.build, '--model_name=times', f'--model_base_path={where}') as server:
        assert server.versions('times') == {1: 'AVAILABLE'}, server.log()


def test_every_type_goes_through_predict_and_rest():
    """Each type with its smallest and largest values, as typed values and as bytes: Predict returns what was
    sent, of that type; REST writes the same, and refuses the types for which JSON has no form."""
    import grpc
    import numpy as np
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
    whole = lambda name: np.array([[np.iinfo(name).min, np.iinfo(name).max]], name)
    real = lambda dtype: np.array([[dtype.min, dtype.max], [np.inf, -np.inf], [-0.0, 0.1]], dtype.as_numpy_dtype)
    values = {name: whole(name) for name in ('int8', 'int16', 'int32', 'int64', 'uint8', 'uint16', 'uint32', 'uint64')}
    values.update({name: real(getattr(tf, name)) for name in ('float16', 'bfloat16', 'float32', 'float64')})
    values['bool'] = np.array([[True, False]])
    values['complex64'] = np.array([[1.5 - 2j, complex(np.inf, 0)]], np.complex64)
    values['string'] = np.array([[b'\x00\xff', b''], ['h\u00e9\U0001f600'.encode(), b'\x00"\\\n']], object)
    not_read = {'uint16', 'float16', 'bfloat16', 'complex64'}  # by REST: see serving-differences.md
    with Server(ARGS.build, '--model_name=types', f'--model_base_path={MODELS}/types') as server:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(server.channel())
        for name, given in values.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name, request.model_spec.signature_name = 'types', name
            request.inputs['x'].CopyFrom(tf.make_tensor_proto(given, dtype=getattr(tf, name)))
            as_bytes = predict_pb2.PredictRequest()
            as_bytes.CopyFrom(request)
            if name != 'string':
                as_bytes.inputs['x'].CopyFrom(tensor := type(request.inputs['x'])())
                as_bytes.inputs['x'].dtype = request.inputs['x'].dtype
                as_bytes.inputs['x'].tensor_shape.CopyFrom(request.inputs['x'].tensor_shape)
                as_bytes.inputs['x'].tensor_content = given.tobytes()
            for sent in (request, as_bytes):
                for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate):
                    output = stub.Predict(sent, timeout=20, compression=compression).outputs['y']
                    assert output.dtype == request.inputs['x'].dtype, (name, output)
                    assert tf.make_ndarray(output).tolist() == given.tolist(), (name, output)
            if name == 'string':  # what is no text cannot be in JSON
                given = given[1:]
                rows = [[{'b64': base64.b64encode(v).decode()} for v in row] for row in given]
            else:
                rows = [[v.real if name == 'complex64' else v for v in row] for row in given.tolist()]
            status, text = server.ask('/v1/models/types:predict', {'signature_name': name, 'instances': rows})
            if name in not_read:
                assert status == 400 and f'to type: {"half" if name == "float16" else name}' in text, (name, text)
                continue
            assert status == 200, (name, text)
            got = json.loads(text)['predictions']
            if name == 'string':
                got = [[v.encode() for v in row] for row in got]
            assert np.array(got, given.dtype).tolist() == given.tolist(), (name, text)


def write_records(path, payloads):
    """A TFRecord file, by TensorFlow's own writer."""
    import tensorflow as tf
    with tf.io.TFRecordWriter(path) as writer:
        for payload in payloads:
            writer.write(payload)


def test_unix_socket_serves_too():
    """gRPC over --grpc_socket_path answers as over TCP."""
    import grpc
    from tensorflow_serving.apis import prediction_service_pb2_grpc
    path = os.path.join(WORK, 'grpc.sock')
    with Server(ARGS.build, *MODEL, f'--grpc_socket_path={path}'):
        stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(f'unix:{path}'))
        assert stub.Predict(predict_request(), timeout=20).outputs['y'].float_val[0] == 4.0


try:
    harness.run([f for name, f in list(globals().items()) if name.startswith('test_')])
finally:
    shutil.rmtree(WORK, ignore_errors=True)
