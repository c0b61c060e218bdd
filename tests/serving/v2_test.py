"""The Open Inference Protocol, version 2, asked by tritonclient (HTTP and gRPC) and, where that client
would not send it, by hand."""
import json, os, shutil, sys, tempfile
import numpy as np
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import Server, wait_for

ARGS = harness.arguments()
MODELS = harness.models(ARGS.build)
HALF = os.path.join(MODELS, 'half')  # version 2: x/2 + 3
TYPES = [('float32', 'FP32'), ('float64', 'FP64'), ('int8', 'INT8'), ('int16', 'INT16'), ('int32', 'INT32'),
         ('int64', 'INT64'), ('uint8', 'UINT8'), ('uint16', 'UINT16'), ('uint32', 'UINT32'),
         ('uint64', 'UINT64'), ('bool', 'BOOL'), ('float16', 'FP16'), ('object', 'BYTES')]


def server(*flags):
    config = os.path.join(MODELS, 'models.config')
    return Server(ARGS.build, f'--model_config_file={config}',
                  '--allow_version_labels_for_unavailable_models', *flags)


def clients(s):
    """(module, client) of tritonclient over HTTP and gRPC."""
    import tritonclient.grpc as by_grpc
    import tritonclient.http as by_http
    return ((by_http, by_http.InferenceServerClient(f'127.0.0.1:{s.rest}')),
            (by_grpc, by_grpc.InferenceServerClient(f'127.0.0.1:{s.grpc}')))


def test_state_and_metadata():
    """Live, ready, per model and version; metadata names inputs, outputs, types and shapes."""
    with server() as s:
        for module, client in clients(s):
            assert client.is_server_live()
            assert client.is_server_ready()
            assert client.is_model_ready('half')
            assert client.is_model_ready('half', '1')
            assert not client.is_model_ready('half', '9')
            assert not client.is_model_ready('nobody')
            meta = client.get_model_metadata('half')
            meta = meta if isinstance(meta, dict) else {
                'name': meta.name, 'versions': list(meta.versions), 'platform': meta.platform,
                'inputs': [{'name': i.name, 'datatype': i.datatype, 'shape': [int(d) for d in i.shape]}
                           for i in meta.inputs]}
            assert (meta['name'], meta['versions'], meta['platform']) == \
                ('half', ['1', '2'], 'tensorflow_savedmodel'), meta
            assert meta['inputs'] == [{'name': 'x', 'datatype': 'FP32', 'shape': [-1]}], meta
            info = client.get_server_metadata()
            assert 'binary_tensor_data' in (info['extensions'] if isinstance(info, dict) else info.extensions)


def test_every_type_comes_back_as_it_went():
    """Each datatype, as binary and (over HTTP) as JSON, through a model that returns its input."""
    with server() as s:
        for module, client in clients(s):
            http = module.__name__.endswith('http')
            for dtype, datatype in TYPES:
                values = (np.array([[b'a\xc3\xa9', b'']], dtype=object) if dtype == 'object'
                          else np.array([[0, 1], [3, 100]]).astype(dtype))
                signature = {'object': 'string'}.get(dtype, dtype)
                for binary in ((True, False) if http else (True,)):
                    if dtype == 'float16' and not binary:
                        continue  # this client refuses to send it
                    given = module.InferInput('x', list(values.shape), datatype)
                    if http:
                        given.set_data_from_numpy(values, binary_data=binary)
                        wanted = module.InferRequestedOutput('y', binary_data=binary)
                    else:
                        given.set_data_from_numpy(values)
                        wanted = module.InferRequestedOutput('y')
                    result = client.infer('types', [given], outputs=[wanted], request_id='7',
                                          parameters={'signature_name': signature})
                    got = result.as_numpy('y')
                    if dtype == 'object' and not binary:
                        got = np.array([[v.encode() if isinstance(v, str) else v for v in row]
                                        for row in got], dtype=object)
                    assert got.tolist() == values.tolist(), (module.__name__, dtype, binary, got)


def test_several_inputs_and_versions():
    """Two inputs, all outputs or one of them; a version is chosen by number."""
    with server() as s:
        for module, client in clients(s):
            a = module.InferInput('a', [2], 'FP32')
            a.set_data_from_numpy(np.array([1, 2], np.float32))
            b = module.InferInput('b', [2, 3], 'FP32')
            b.set_data_from_numpy(np.ones((2, 3), np.float32))
            both = client.infer('multi', [b, a])
            assert both.as_numpy('sum').tolist() == [4.0, 5.0]
            assert both.as_numpy('cat').shape == (2, 4)
            one = client.infer('multi', [a, b], outputs=[module.InferRequestedOutput('sum')])
            assert one.as_numpy('cat') is None
            x = module.InferInput('x', [1], 'FP32')
            x.set_data_from_numpy(np.array([2], np.float32))
            assert client.infer('half', [x], model_version='1').as_numpy('y').tolist() == [3.0]
            assert client.infer('half', [x]).as_numpy('y').tolist() == [4.0]


def test_16_bit_floats_come_as_json_numbers_too():
    """FP16 and BF16 in JSON, which TensorFlow Serving's own REST has no form for."""
    with server() as s:
        for signature, datatype in (('float16', 'FP16'), ('bfloat16', 'BF16')):
            status, text = s.ask('/v2/models/types/infer', {
                'parameters': {'signature_name': signature},
                'inputs': [{'name': 'x', 'shape': [1, 2], 'datatype': datatype, 'data': [1.5, -0.25]}]})
            assert status == 200, text
            output = json.loads(text)['outputs'][0]
            assert output == {'name': 'y', 'datatype': datatype, 'shape': [1, 2], 'data': [1.5, -0.25]}


def test_what_is_wrong_is_named():
    """Each wrong request gets a 4xx that names the input and what was expected; the server goes on."""
    x = lambda **change: {'inputs': [{'name': 'x', 'shape': [1], 'datatype': 'FP32', 'data': [2.0], **change}]}
    with server() as s:
        for body, status, want in (
                ('[]', 400, 'must be a JSON object'),
                ('{', 400, 'JSON Parse error'),
                ({}, 400, 'needs \\"inputs\\" as a list'),
                ({'inputs': [5]}, 400, 'each must be an object'),
                (x(name='z'), 400, 'has no such input'),
                ({'inputs': x()['inputs'] * 2}, 400, 'given twice'),
                ({'inputs': []}, 400, 'input \\"x\\": missing'),
                (x(datatype='INT32', data=[2]), 400, 'expected datatype FP32, got INT32'),
                (x(datatype='FP99'), 400, 'unknown datatype'),
                (x(shape=[2]), 400, 'has 2 values, got 1'),
                (x(shape=[-1]), 400, 'is not valid'),
                (x(shape=[1 << 62, 1 << 62]), 400, 'is not valid'),
                (x(shape=[1 << 40]), 400, 'has 1099511627776 values, got 1'),
                (x(shape='1'), 400, '\\"shape\\" must be a list'),
                (x(data=['a']), 400, 'value 0: expected FP32'),
                (x(data=None), 400, 'expected \\"data\\"'),
                (x(parameters={'binary_data_size': 4}), 400, 'more than the 0 bytes that are left'),
                ({**x(), 'outputs': [{'name': 'q'}]}, 400, 'has no such output'),
                ({**x(), 'parameters': {'signature_name': 'none'}}, 400, 'not found in signature def')):
            got, text = s.ask('/v2/models/half/infer', body.encode() if isinstance(body, str) else body)
            assert got == status and want in text, (body, got, text)
        assert s.ask('/v2/models/nobody/infer', x())[0] == 404
        assert s.ask('/v2/models/half/versions/9/infer', x())[0] == 404
        assert s.ask('/v2/models/half/versions/x/infer', x())[0] == 400
        assert s.ask('/v2/other')[0] == 404
        size = {'Inference-Header-Content-Length': '9'}
        status, text = s.ask('/v2/models/half/infer', b'{}', size)
        assert status == 400 and 'is 9, the body has 2 bytes' in text, text
        status, text = s.ask('/v2/models/half/infer', x())
        assert status == 200 and json.loads(text)['outputs'][0]['data'] == [4.0], text


def test_errors_reach_the_client():
    """What is refused comes to tritonclient as its own exception, with code and words, over both ways."""
    from tritonclient.utils import InferenceServerException
    with server() as s:
        for module, client in clients(s):
            x = module.InferInput('x', [1], 'FP32')
            x.set_data_from_numpy(np.array([2], np.float32))
            wrong = module.InferInput('x', [1], 'INT32')
            wrong.set_data_from_numpy(np.array([2], np.int32))
            for ask, code, says in (
                    (lambda: client.infer('nobody', [x]), ('404', 'StatusCode.NOT_FOUND'), 'Latest(nobody)'),
                    (lambda: client.infer('half', [wrong]), ('400', 'StatusCode.INVALID_ARGUMENT'),
                     'expected datatype FP32'),
                    (lambda: client.get_model_metadata('half', '9'), ('404', 'StatusCode.NOT_FOUND'),
                     'Specific(half, 9)')):
                try:
                    ask()
                    raise AssertionError(f'{says}: it is answered')
                except InferenceServerException as error:
                    assert error.status() in code and says in error.message(), (error.status(), error.message())
            assert client.infer('half', [x]).as_numpy('y').tolist() == [4.0]


def test_models_are_loaded_and_unloaded_one_by_one():
    """The repository lists every version with its state; one model is added and taken away while the
    others go on."""
    other = tempfile.mkdtemp(prefix='serving_v2.')
    try:
        shutil.copytree(os.path.join(HALF, '00000001'), os.path.join(other, '5'))
        with server() as s:
            index = lambda: {(m['name'], m['version']): m['state'] for m in
                             json.loads(s.ask('/v2/repository/index', {})[1])}
            assert index()[('half', '1')] == 'READY'
            assert s.ask('/v2/repository/models/more/load', {})[0] == 400
            status, text = s.ask('/v2/repository/models/more/load', {'parameters': {'base_path': other}})
            assert status == 200, text
            assert index()[('more', '5')] == 'READY'
            assert s.predict('more', [2.0]) == [3.0]
            assert s.ask('/v2/repository/models/more/unload', {})[0] == 200
            assert s.ask('/v2/repository/models/more/unload', {})[0] == 404
            wait_for('it is gone', lambda: ('more', '5') not in index())
            assert s.predict('half', [2.0]) == [4.0]
            module, client = clients(s)[0]
            assert any(m['name'] == 'half' for m in client.get_model_repository_index())
            client.unload_model('half')
            assert not client.is_model_ready('half')
    finally:
        shutil.rmtree(other, ignore_errors=True)


harness.run([f for name, f in list(globals().items()) if name.startswith('test_')])
