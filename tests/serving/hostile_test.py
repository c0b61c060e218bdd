"""Requests and peers that mean harm, on a whole server over a real model. Each time: the right code for
them, and another client is answered as before. What belongs to HTTP/2 and HTTP/1.1 themselves (floods,
broken frames, headers, slow peers by their timeouts) is in src/net/grpc_hostile_test.cc and
http_server_test.cc; broken models are in lifecycle_test.py."""
import json, os, re, resource, socket, struct, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import Server

ARGS = harness.arguments()
MODELS = harness.models(ARGS.build)
PREDICT = '/tensorflow.serving.PredictionService/Predict'


def varint(value):
    out = b''
    while True:
        low, value = value & 127, value >> 7
        out += bytes([low | (128 if value else 0)])
        if not value:
            return out


def number(field, value):
    return varint(field << 3) + varint(value & (2 ** 64 - 1))


def message(field, content):
    return varint(field << 3 | 2) + varint(len(content)) + content


def tensor(dtype, dims, rest=b''):
    return number(1, dtype) + message(2, b''.join(message(2, number(1, d)) for d in dims)) + rest


def predict(value, model=b'half', alias=b'x'):
    """A PredictRequest whose one input is `value`, a TensorProto's bytes."""
    return message(1, message(1, model)) + message(2, message(1, alias) + message(2, value))


class Victim:
    """A server, and a client that must go on being answered."""

    def __init__(self, env=None):
        self.env = env

    def __enter__(self):
        config = os.path.join(MODELS, 'models.config')
        self.server = Server(ARGS.build, f'--model_config_file={config}',
                             '--allow_version_labels_for_unavailable_models', env=self.env)
        self.server.__enter__()
        self.channel = self.server.channel()
        self.others_are_answered()
        return self

    def __exit__(self, *error):
        try:
            if error[0] is None:
                self.others_are_answered()
                assert self.server.process.poll() is None, self.server.log()[-3000:]
        finally:
            self.server.__exit__(*error)

    def ask(self, body, method=PREDICT):
        """('OK', response) or (code, message)."""
        import grpc
        call = self.channel.unary_unary(method, request_serializer=lambda b: b,
                                        response_deserializer=lambda b: b)
        try:
            return 'OK', call(body, timeout=30)
        except grpc.RpcError as error:
            return error.code().name, error.details()

    def others_are_answered(self):
        assert self.server.predict('half', [2.0]) == [4.0]
        code, answer = self.ask(predict(tensor(1, [1], message(5, struct.pack('<f', 2.0)))))
        assert code == 'OK' and struct.pack('<f', 4.0) in answer, (code, answer)

    def rss(self):
        with open(f'/proc/{self.server.process.pid}/status') as f:
            return next(int(line.split()[1]) * 1024 for line in f if line.startswith('VmRSS'))


def test_tensors_that_lie():
    """Negative, overflowing and unknown shapes, wrong lengths, wrong types: refused as the original refuses
    them, without memory for what they promise."""
    two = message(5, struct.pack('<2f', 1, 2))
    wrong = 'tensor parsing error: x'
    with Victim() as victim:
        before = victim.rss()
        for value, said in (
                (tensor(1, [-1], two), wrong),
                (tensor(1, [-2 ** 63], two), wrong),
                (tensor(1, [2 ** 31, 2 ** 31, 2 ** 31], two), wrong),
                (tensor(1, [2 ** 62, 2], two), wrong),
                (tensor(1, [2 ** 63 - 1, 2 ** 63 - 1], two), wrong),
                (tensor(1, [1] * 255, two), wrong),
                (number(1, 1) + message(2, number(3, 1)) + two, wrong),
                (tensor(1, [2], message(4, b'abc')), wrong),
                (tensor(1, [3], message(4, bytes(8))), wrong),
                (tensor(1, [1], message(4, bytes(8))), wrong),
                (tensor(99, [1], two), wrong),
                (tensor(0, [1], two), wrong),
                (tensor(20, [1]), 'Invalid resource type hash code'),
                (tensor(21, [1]), wrong),
                (tensor(3, [1], message(7, b'\x01')), 'Expects arg[0] to be float but int32 is provided'),
                (tensor(7, [1], message(8, b'x')), 'Expects arg[0] to be float but string is provided')):
            code, text = victim.ask(predict(value))
            assert code == 'INVALID_ARGUMENT' and said in text, (value, code, text)
        # One value for a shape of half a terabyte.
        code, text = victim.ask(predict(tensor(1, [2 ** 37], message(5, struct.pack('<f', 1)))))
        assert code in ('RESOURCE_EXHAUSTED', 'INVALID_ARGUMENT'), (code, text)
        assert victim.rss() < before + (64 << 20)


def test_bytes_that_are_no_message():
    """Truncated and random bytes, fields of other wire types, lengths beyond the end, groups, text that is no
    UTF-8, for each call."""
    import random
    whole = predict(tensor(1, [2], message(5, struct.pack('<2f', 1, 2))))
    random.seed(1)
    bodies = [whole[:cut] for cut in range(0, len(whole), 3)]
    bodies += [b'\xff' * 100, b'\x0a\xff\xff\xff\xff\x0f', varint(1 << 3 | 3) * 1000, number(1, 5),
               message(2, message(1, b'x') + message(2, b'\x0a')), b'\x80' * 11,
               predict(tensor(1, [1]), model=b'\xff\xfe'), predict(tensor(1, [1]), alias=b'\xff'),
               message(1, b'\x0a' * 64) * 50]
    bodies += [bytes(b ^ (1 << random.randrange(8)) if random.random() < 0.05 else b for b in whole)
               for _ in range(200)]
    services = [PREDICT] + ['/tensorflow.serving.' + name for name in (
        'PredictionService/Classify', 'PredictionService/Regress', 'PredictionService/MultiInference',
        'PredictionService/GetModelMetadata', 'ModelService/GetModelStatus')]
    services.append('/inference.GRPCInferenceService/ModelInfer')
    with Victim() as victim:
        for method in services:
            for body in bodies:
                code, text = victim.ask(body, method)
                assert code in ('OK', 'INVALID_ARGUMENT', 'NOT_FOUND', 'FAILED_PRECONDITION', 'INTERNAL',
                                'UNIMPLEMENTED', 'RESOURCE_EXHAUSTED'), (method, body, code, text)
            victim.others_are_answered()


def test_json_that_lies():
    """NaN where an integer is, numbers beyond their type, lists of other sizes, nesting without end, text that
    is no UTF-8, over /v1 and /v2."""
    def v1(signature, values, model='types'):
        return f'/v1/models/{model}:predict', f'{{"signature_name": "{signature}", "instances": {values}}}'

    def v2(datatype, shape, data, signature):
        return '/v2/models/types/infer', (
            f'{{"parameters": {{"signature_name": "{signature}"}}, "inputs": [{{"name": "x", '
            f'"datatype": "{datatype}", "shape": {shape}, "data": {data}}}]}}')
    deep = '[' * 100000
    with Victim() as victim:
        for path, body in (
                v1('int32', '[[NaN, 1]]'), v1('int64', '[[Infinity, 1]]'), v1('uint8', '[[-Infinity, 1]]'),
                v1('bool', '[[NaN, true]]'), v1('int32', '[[1e300, 1]]'), v1('string', '[[NaN, "x"]]'),
                v1('int64', '[[1e999, 1]]'), v1('float32', '[[1], [1, 2]]'), v1('float32', '[[[1]], [1]]'),
                v1('float32', deep), v1('float32', deep + ']' * 100000), v1('float32', '{"x":' * 100000),
                v1('int32', '[[' + '9' * 100000 + ', 1]]'), v1('float32', r'[["\ud800", 1]]'),
                v2('INT32', '[1, 2]', '[NaN, 1]', 'int32'), v2('INT8', '[1, 2]', '[300, 1]', 'int8'),
                v2('FP32', '[-1, 2]', '[1, 2]', 'float32'), v2('FP32', '[1, 3]', '[1, 2]', 'float32'),
                v2('FP32', '[4611686018427387904, 4]', '[1, 2]', 'float32'),
                v2('FP32', '[9223372036854775807]', '[1, 2]', 'float32'),
                v2('FP32', '[1, 2]', deep, 'float32'), v2('FP99', '[1, 2]', '[1, 2]', 'float32'),
                v2('UINT64', '[1, 2]', '[18446744073709551616, 1]', 'uint64'),
                ('/v2/models/types/infer', '{"inputs": 1}'), ('/v2/models/types/infer', '[]'),
                ('/v2/models/types/infer', '{"inputs": [{"name": "x"}]}')):
            status, text = victim.server.ask(path, body.encode())
            assert status == 400 and len(json.loads(text)['error']) > 10, (path, body[:200], status, text)
        status, _ = victim.server.ask('/v1/models/types:predict',
                                      b'{"signature_name": "string", "instances": [["\xff\xfe", "x"]]}')
        assert status == 200  # bytes go through as they are, as in the original
        for length in ('-1', 'x', '999999', '18446744073709551616'):
            status, text = victim.server.ask(
                '/v2/models/types/infer', b'{"inputs": []}', {'Inference-Header-Content-Length': length})
            assert status == 400, (length, status, text)
        binary = (b'{"parameters": {"signature_name": "float32"}, "inputs": [{"name": "x", "datatype": "FP32", '
                  b'"shape": [1, 2], "parameters": {"binary_data_size": 1000000000}}]}')
        status, text = victim.server.ask('/v2/models/types/infer', binary + b'12345678',
                                         {'Inference-Header-Content-Length': str(len(binary))})
        assert status == 400, (status, text)


def test_names_without_end_are_one_name_in_the_metrics():
    """Thousands of models, signatures and methods that nobody has, each asked for once: the metrics keep to
    their limit and count the rest as one model, "other"; the models that are there are counted as before."""
    with Victim({'TAKT_INSTANCE': 'a.b.1.c'}) as victim:
        before = victim.rss()
        one = tensor(1, [1], message(5, struct.pack('<f', 2.0)))
        for i in range(3000):
            victim.ask(predict(one, model=b'%d' % i + b'm' * 1000))
        for i in range(100):
            victim.server.ask(f'/v1/models/r{i}:predict', {'instances': [1]})
            victim.server.ask(f'/v2/models/r{i}/infer', {'inputs': []})
        text = victim.server.ask('/monitoring/prometheus/metrics')[1]
        assert 'model="other"' in text
        names = set(re.findall(r'takt_serving_requests_total\{model="(\d+m)', text))
        assert 0 < len(names) <= 500, len(names)  # of the one thread that has the connection
        counted = lambda text: int(re.search(
            r'requests_total\{model="half",version="2",signature="serving_default",api="predict",'
            r'entrypoint="GRPC",code="OK"\} (\d+)', text)[1])
        victim.others_are_answered()
        again = victim.server.ask('/monitoring/prometheus/metrics')[1]
        assert counted(again) == counted(text) + 1, (counted(again), counted(text))
        assert victim.rss() < before + (96 << 20)


def test_thousands_of_idle_connections_cost_little():
    """Thousands of connections that say nothing, on both ports, and others that are in the middle of a
    request: others are served, and the memory for each is small."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = min(hard, 16384) if hard != resource.RLIM_INFINITY else 16384
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))  # the server's too
    count = min(3000, (most - 500) // 2)
    try:
        with Victim() as victim:
            before, peers = victim.rss(), []
            for port, opening in ((victim.server.grpc, b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' + bytes(9)),
                                  (victim.server.rest, b'POST /v1/models/half:predict HTTP/1.1\r\nConte')):
                for i in range(count):
                    peer = socket.create_connection(('127.0.0.1', port), 30)
                    peers.append(peer)
                    if i % 3 == 0:
                        peer.sendall(opening)
            for _ in range(20):
                victim.others_are_answered()
            grown = (victim.rss() - before) / len(peers)
            assert grown < 64 << 10, f'{grown} bytes a connection'
            for peer in peers:
                peer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_who_sends_a_byte_at_a_time_hinders_nobody():
    """Peers that send their requests in single bytes, on both ports, and read nothing: others are answered
    between any two bytes, and the slow one in the end, too."""
    body = b'{"instances": [2.0]}'
    rest = (b'POST /v1/models/half:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n'
            b'Connection: close\r\n\r\n' % len(body)) + body
    grpc = b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    with Victim() as victim:
        slow = [(socket.create_connection(('127.0.0.1', port), 30), whole)
                for port, whole in ((victim.server.rest, rest), (victim.server.grpc, grpc))]
        for peer, _ in slow:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(max(len(rest), len(grpc))):
            for peer, whole in slow:
                peer.sendall(whole[at:at + 1])
            if at % 16 == 0:
                victim.others_are_answered()
        answer = b''
        while part := slow[0][0].recv(65536):
            answer += part
        assert answer.startswith(b'HTTP/1.1 200 OK') and b'4.0' in answer, answer
        assert slow[1][0].recv(9)[3] == 4, 'no SETTINGS'
        for peer, _ in slow:
            peer.close()


def test_bodies_beyond_every_limit():
    """A length of four gibibytes, a body that never comes, answers that nobody reads: refused, or dropped
    with their connection."""
    with Victim() as victim:
        before = victim.rss()
        with socket.create_connection(('127.0.0.1', victim.server.rest), 30) as peer:
            peer.sendall(b'POST /v1/models/half:predict HTTP/1.1\r\nHost: x\r\n'
                         b'Content-Length: 4294967296\r\n\r\n')
            assert b' 413 ' in peer.recv(4096)
        for length in (b'99999999999999999999999', b'-1', b'1, 2', b'0x10'):
            with socket.create_connection(('127.0.0.1', victim.server.rest), 30) as peer:
                peer.sendall(b'POST /v1/models/half:predict HTTP/1.1\r\nHost: x\r\nContent-Length: '
                             + length + b'\r\n\r\n')
                assert peer.recv(4096).split(b' ')[1] in (b'400', b'413'), length
        # Pipelined requests whose answers are not read.
        ask = b'GET /v1/models/multi/metadata HTTP/1.1\r\nHost: x\r\n\r\n'
        deaf = socket.create_connection(('127.0.0.1', victim.server.rest), 30)
        deaf.settimeout(1)
        try:
            for _ in range(200):
                deaf.sendall(ask * 200)
        except OSError:
            pass  # the server takes no more, as it should
        victim.others_are_answered()
        assert victim.rss() < before + (96 << 20)
        deaf.close()


harness.run([f for name, f in list(globals().items()) if name.startswith('test_')])
