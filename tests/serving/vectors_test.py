"""Asks what a stock TensorFlow Serving was asked (answers.json) and compares the answers.

Equal means: the same status and content type; the same JSON (numbers within 1e-5) or response
message; the same error text, white space, node names and addresses aside. What differs on purpose is
in DIFFERENCES, by the name under which docs/serving-differences.md explains it; a difference that is
listed and does not show, or whose section is missing, fails too."""
import http.client, json, math, os, re, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness

# Request -> (section of docs/serving-differences.md, our answer).
DIFFERENCES = {
    ('rest', 'POST', '/v1/models/half/versions/99999999999999999999:predict', '{"instances": [2.0]}'): (
        'A version number beyond int64', 400,
        'Failed to convert version: 99999999999999999999 to numeric.'),
    ('rest', 'POST', '/v1/models/types:predict',
     '{"signature_name": "int8", "instances": [[-1, 300]]}'): (
        'A number that does not fit its type', 400,
        "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: 300 "
        'Type: Number is not of expected type: int8'),
    ('rest', 'POST', '/v1/models/types:predict',
     '{"signature_name": "uint8", "instances": [[-1, 300]]}'): (
        'A number that does not fit its type', 400,
        "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: -1 "
        'Type: Number is not of expected type: uint8'),
}


def ask_rest(port, method, path, body):
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=20)
    connection.request(method, path, body,
                       {'content-type': 'application/json'} if body is not None else {})
    response = connection.getresponse()
    text = response.read().decode('utf-8', 'backslashreplace')
    connection.close()
    return {'status': response.status, 'content_type': response.getheader('content-type'), 'body': text}


def grpc_messages():
    from tensorflow_serving.apis import (
        classification_pb2, get_model_metadata_pb2, get_model_status_pb2, inference_pb2,
        model_management_pb2, predict_pb2, regression_pb2)
    return {
        'Predict': (predict_pb2.PredictRequest, predict_pb2.PredictResponse),
        'Regress': (regression_pb2.RegressionRequest, regression_pb2.RegressionResponse),
        'Classify': (classification_pb2.ClassificationRequest, classification_pb2.ClassificationResponse),
        'MultiInference': (inference_pb2.MultiInferenceRequest, inference_pb2.MultiInferenceResponse),
        'GetModelMetadata': (get_model_metadata_pb2.GetModelMetadataRequest,
                             get_model_metadata_pb2.GetModelMetadataResponse),
        'GetModelStatus': (get_model_status_pb2.GetModelStatusRequest,
                           get_model_status_pb2.GetModelStatusResponse),
        'HandleReloadConfigRequest': (model_management_pb2.ReloadConfigRequest,
                                      model_management_pb2.ReloadConfigResponse),
    }


def ask_grpc(channel, messages, method, text):
    import grpc
    from google.protobuf import text_format
    request_type, response_type = messages[method.split('/')[1]]
    call = channel.unary_unary('/tensorflow.serving.' + method,
                               request_serializer=lambda m: m.SerializeToString(deterministic=True),
                               response_deserializer=response_type.FromString)
    try:
        response = call(text_format.Parse(text, request_type()), timeout=20)
        return {'code': 'OK', 'response': text_format.MessageToString(response)}
    except grpc.RpcError as error:
        return {'code': error.code().name, 'message': error.details()}


def close(a, b):
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b)) or abs(a - b) <= 1e-5 * max(1, abs(a), abs(b))
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(close, a, b))
    return a == b


def stable(text):
    volatile = r'goo\.gle/debug(.|\n)*|0x[0-9a-f]+|\{\{node [^}]*\}\}|\[\[.*?\]\]|line: \d+ column: \d+'
    return re.sub(r'\s+', ' ', re.sub(volatile, '#', text or ''))


def words(text):
    """Of a text message: maps come in any order."""
    return sorted(re.findall(r'[^\s,]+', text))


def same(want, got):
    if 'code' in want:
        if want['code'] != got['code']:
            return False
        if want['code'] == 'OK':
            return words(want['response']) == words(got['response'])
        return stable(want['message']) == stable(got['message'])
    if want['status'] != got['status']:
        return False
    if (want['content_type'] or '').split(';')[0] != (got['content_type'] or '').split(';')[0]:
        return False
    if want['status'] == 200:
        return close(json.loads(want['body']), json.loads(got['body']))
    return stable(want['body']) == stable(got['body'])


def main():
    args = harness.arguments()
    models = harness.models(args.build)
    rows = json.load(open(os.path.join(harness.HERE, 'answers.json')))
    sections = open(os.path.join(args.source, 'docs', 'serving-differences.md')).read()
    wrong = []
    with harness.Server(args.build, f'--model_config_file={models}/models.config',
                        '--allow_version_labels_for_unavailable_models=true') as server:
        channel, messages = server.channel(), grpc_messages()
        for row in rows:
            request, want = row['request'], row['answer']
            if request[0] == 'rest':
                got = ask_rest(server.rest, *request[1:])
            else:
                got = ask_grpc(channel, messages, *request[1:])
            difference = DIFFERENCES.get(tuple(request))
            if difference is None:
                fine = same(want, got)
            else:
                section, status, message = difference
                fine = (not same(want, got) and f'\n## {section}\n' in sections and
                        got['status'] == status and json.loads(got['body'])['error'] == message)
            if not fine:
                wrong.append((request, want, got))
        assert server.terminate() == 0
    for request, want, got in wrong:
        print('REQUEST', json.dumps(request), '\n  want', json.dumps(want)[:900], '\n  got ',
              json.dumps(got)[:900])
    asked = {tuple(row['request']) for row in rows}
    assert set(DIFFERENCES) <= asked, 'a difference is listed for a request that is not asked'
    equal = len(rows) - len(wrong) - len(DIFFERENCES)
    print(f'{equal} of {len(rows)} answers equal, {len(DIFFERENCES)} better on purpose')
    sys.exit(bool(wrong) or equal < 0.98 * len(rows))


main()
