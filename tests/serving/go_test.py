"""The server asked by grpc-go, a gRPC of another make than the Python and C++ clients': all calls, errors,
compression, many streams at once, large messages, deadlines, cancellation, TLS and mutual TLS."""
import json, os, subprocess, sys, tempfile
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import Server, wait_for

ARGS = harness.arguments()
MODELS = harness.models(ARGS.build)
HALF = os.path.join(MODELS, 'half')  # version 2: x/2 + 3
SPEC = 'model_spec { name: "half" }'
X = 'inputs { key: "x" value { dtype: DT_FLOAT tensor_shape { dim { size: 1 } } float_val: 2 } }'
PREDICT = 'tensorflow.serving.PredictionService/Predict'


CLIENT = harness.go_program(ARGS.build, 'go_client')


class Go:
    def __init__(self, port, *flags):
        self.process = subprocess.Popen(
            [CLIENT, '--address', f'localhost:{port}', '--descriptors',
             os.path.join(ARGS.build, 'tf_protos', 'tensorflow.descriptors'), *flags],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, method, request, **more):
        self.process.stdin.write(json.dumps({'method': method, 'request': request, **more}) + '\n')
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, 'the client ended'
        answer = json.loads(line)
        # Go's text form puts one or two blanks anywhere, on purpose.
        answer['response'] = ' '.join(answer['response'].split())
        return answer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(30)


def server(*flags):
    return Server(ARGS.build, '--model_name=half', f'--model_base_path={HALF}', *flags)


def test_every_call_and_its_errors():
    """Predict, Classify, Regress, MultiInference, GetModelMetadata, GetModelStatus and reload: answers, and
    errors with their words."""
    examples = 'input { example_list { examples { features { feature { key: "x" value { float_list { value: 1 } } } } } } }'
    regress = 'model_spec { name: "half" signature_name: "regress" }'
    service = 'tensorflow.serving.PredictionService/'
    with server() as s, Go(s.grpc) as go:
        for method, request, code, said in (
                (PREDICT, f'{SPEC} {X}', 'OK', 'float_val:4'),
                (PREDICT, X, 'InvalidArgument', 'Missing ModelSpec'),
                (PREDICT, f'model_spec {{ name: "no" }} {X}', 'NotFound',
                 'Servable not found for request: Latest(no)'),
                (service + 'Regress', f'{regress} {examples}', 'OK', 'value:3.5'),
                (service + 'Classify', f'{regress.replace("regress", "classify")} {examples}', 'OK',
                 'label:"low" score:3.5'),
                (service + 'MultiInference',
                 f'tasks {{ {regress} method_name: "tensorflow/serving/regress" }} {examples}', 'OK', 'value:3.5'),
                (service + 'GetModelMetadata', f'{SPEC} metadata_field: "signature_def"', 'OK', 'y_flat:0'),
                ('tensorflow.serving.ModelService/GetModelStatus', SPEC, 'OK', 'state:AVAILABLE'),
                ('tensorflow.serving.ModelService/HandleReloadConfigRequest', '', 'InvalidArgument',
                 'Only ModelConfigList')):
            answer = go.ask(method, request)
            assert answer['code'] == code and said in answer['response'] + answer['message'], (method, answer)
        config = f'config {{ model_config_list {{ config {{ name: "half" base_path: "{HALF}" ' \
                 'model_platform: "tensorflow" model_version_policy { specific { versions: 1 } } } } }'
        assert go.ask('tensorflow.serving.ModelService/HandleReloadConfigRequest', config)['code'] == 'OK'
        assert 'float_val:3' in go.ask(PREDICT, f'{SPEC} {X}')['response']


def test_many_streams_large_and_compressed_messages():
    """A thousand calls, two hundred at once, on one connection, plain and gzip; a message of four megabytes
    both ways."""
    with server('--batching=auto') as s, Go(s.grpc) as go:
        for gzip in (False, True):
            answer = go.ask(PREDICT, f'{SPEC} {X}', calls=1000, parallel=200, gzip=gzip)
            assert answer['codes'] == {'OK': 1000}, answer
            assert 'float_val:4' in answer['response']
        values = 1 << 20
        large = (f'{SPEC} inputs {{ key: "x" value {{ dtype: DT_FLOAT tensor_shape {{ dim {{ size: {values} }} }} '
                 f'tensor_content: "{"".join([chr(92) + "000"] * 4 * values)}" }} }}')
        for gzip in (False, True):
            answer = go.ask(PREDICT, large, gzip=gzip)
            assert answer['code'] == 'OK' and answer['response'].count('float_val:3') == values, answer['message']


def test_deadlines_and_cancellation_end_calls_that_wait():
    """Calls that wait in a batching queue end at their deadline or when they are cancelled; they are not run,
    and the server goes on."""
    parameters = os.path.join(tempfile.mkdtemp(), 'batching')
    with open(parameters, 'w') as f:
        f.write('max_batch_size { value: 64 } batch_timeout_micros { value: 3000000 }')
    with server('--enable_batching', f'--batching_parameters_file={parameters}') as s, Go(s.grpc) as go:
        answer = go.ask(PREDICT, f'{SPEC} {X}', calls=20, parallel=20, timeout_ms=100)
        assert answer['codes'] == {'DeadlineExceeded': 20}, answer
        answer = go.ask(PREDICT, f'{SPEC} {X}', calls=20, parallel=20, cancel_after_ms=50)
        assert answer['codes'] == {'Canceled': 20}, answer
        answer = go.ask(PREDICT, f'{SPEC} {X}', calls=64, parallel=64)
        assert answer['codes'] == {'OK': 64}, answer


def test_tls_and_mutual_tls():
    """Over TLS, and with a client certificate where the server asks for one; without it: unavailable."""
    where = tempfile.mkdtemp()
    run = lambda *a: subprocess.run(['openssl', *a], cwd=where, check=True, capture_output=True)
    key = ('-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes')
    run('req', '-x509', *key, '-days', '2', '-subj', '/CN=ca', '-keyout', 'ca.key', '-out', 'ca.pem')
    with open(os.path.join(where, 'names'), 'w') as f:
        f.write('subjectAltName=DNS:localhost')
    for name in ('server', 'client'):
        run('req', *key, '-subj', '/CN=localhost', '-keyout', f'{name}.key', '-out', f'{name}.csr')
        run('x509', '-req', '-in', f'{name}.csr', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial',
            '-days', '2', '-extfile', 'names', '-out', f'{name}.pem')
    pem = lambda name: '"' + open(os.path.join(where, name)).read().replace('\n', '\\n') + '"'
    path = lambda name: os.path.join(where, name)
    for verify in ('false', 'true'):
        config = path('ssl.config')
        with open(config, 'w') as f:
            f.write(f'server_key: {pem("server.key")} server_cert: {pem("server.pem")} '
                    f'custom_ca: {pem("ca.pem")} client_verify: {verify}')
        with server(f'--ssl_config_file={config}') as s:
            with Go(s.grpc, '--ca', path('ca.pem')) as go:
                answer = go.ask(PREDICT, f'{SPEC} {X}', timeout_ms=5000)
                assert answer['code'] == ('Unavailable' if verify == 'true' else 'OK'), answer
            with Go(s.grpc, '--ca', path('ca.pem'), '--key', path('client.key'), '--certificate',
                    path('client.pem')) as go:
                answer = go.ask(PREDICT, f'{SPEC} {X}', calls=100, parallel=10)
                assert answer['codes'] == {'OK': 100}, answer


harness.run([f for name, f in list(globals().items()) if name.startswith('test_')])
