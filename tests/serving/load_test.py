"""takt-load against a server: every source of requests, over gRPC and REST, closed and open loop, and a
plot in which a version switch is marked."""
import json, os, shutil, struct, subprocess, sys, tempfile, threading
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import Server, wait_for

ARGS = harness.arguments()
HALF = os.path.join(harness.models(ARGS.build), 'half')  # version 1: x/2 + 2, version 2: x/2 + 3


def predict_request():
    from tensorflow_serving.apis import predict_pb2
    request = predict_pb2.PredictRequest()
    request.model_spec.name = 'half'
    request.inputs['x'].dtype = 1
    request.inputs['x'].tensor_shape.dim.add(size=1)
    request.inputs['x'].float_val.append(2.0)
    return request


def masked_crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    crc ^= 0xffffffff
    return ((crc >> 15 | crc << 17) + 0xa282ead8) & 0xffffffff


def write_log(path, requests):
    from tensorflow_serving.apis import prediction_log_pb2
    with open(path, 'wb') as f:
        for request in requests:
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(request)
            data = log.SerializeToString()
            length = struct.pack('<Q', len(data))
            f.write(length + struct.pack('<I', masked_crc32c(length)) + data + struct.pack('<I', masked_crc32c(data)))


class Load:
    """Runs takt-load and keeps what it said."""

    def __init__(self, *flags, status=0):
        with tempfile.TemporaryDirectory() as out:
            report = os.path.join(out, 'report.json')
            done = subprocess.run([os.path.join(ARGS.build, 'bin', 'takt-load'), '--json', report, *flags],
                                  capture_output=True, text=True, timeout=120)
            self.text = done.stdout + done.stderr
            assert done.returncode == status, f'takt-load {flags}: status {done.returncode}\n{self.text}'
            self.report = json.load(open(report)) if os.path.exists(report) else None


def check_every_source(folder, server):
    from google.protobuf import json_format
    request = predict_request()
    binary, proto_json, body, log = (os.path.join(folder, name) for name in ('r.bin', 'r.json', 'body.json', 'log'))
    with open(binary, 'wb') as f:
        f.write(request.SerializeToString())
    with open(proto_json, 'w') as f:
        f.write(json_format.MessageToJson(request))
    with open(body, 'w') as f:
        json.dump({'instances': [2.0]}, f)
    write_log(log, [request, request])
    grpc, rest = ('--target', f'127.0.0.1:{server.grpc}'), ('--target', f'127.0.0.1:{server.rest}', '--rest')
    sources = [('--request', binary), ('--request', proto_json), ('--replay', log), ('--model', 'half', '--rows', '3')]
    cases = [(grpc, source) for source in sources] + [(rest, source) for source in sources]
    cases.append((rest, ('--request', body, '--model', 'half')))
    for where, source in cases:
        closed = Load(*where, *source, '-c', '2', '-d', '0.3', '--warm-up', '0.1', '--server-pid',
                      str(server.process.pid)).report
        assert closed['ok'] > 100 and closed['errors'] == {}, (where, source, closed)
        percentiles = [closed['latency_us'][p] for p in ('p50', 'p90', 'p99', 'p99.9', 'max')]
        assert percentiles == sorted(percentiles) and percentiles[0] > 0, closed
        assert closed['server_cpu_us_per_request'] > 0 and closed['server_without_core'] >= 0, closed
        open_loop = Load(*where, *source, '-c', '2', '-r', '200', '-d', '0.5', '--warm-up', '0').report
        assert 50 <= open_loop['ok'] <= 101 and open_loop['errors'] == {}, (where, source, open_loop)


def check_failures_are_told(folder, server):
    rest = ('--target', f'127.0.0.1:{server.rest}', '--rest')
    body = os.path.join(folder, 'wrong.json')
    with open(body, 'w') as f:
        f.write('{"instances": ["text"]}')
    wrong = Load(*rest, '--request', body, '--model', 'half', '-d', '0.1', '--warm-up', '0', status=1)
    assert wrong.report['ok'] == 0 and wrong.report['errors'].get('400', 0) > 0, wrong.report
    assert 'is not of expected type: float' in wrong.report['first_error'], wrong.report
    missing = Load(*rest, '--request', body, status=2)
    assert 'does not say which model is asked' in missing.text, missing.text
    nothing = Load(*rest, status=2)
    assert 'what to ask: --request, --replay or --model' in nothing.text, nothing.text
    unknown = Load('--target', f'127.0.0.1:{server.rest}', '--rest', '--model', 'none', status=5)
    assert 'none/metadata: 404' in unknown.text, unknown.text


def check_a_switch_is_marked(folder, base, server):
    """Version 2 comes while both loads run; both plots say so."""
    shutil.copytree(os.path.join(HALF, '00000002'), os.path.join(folder, 'next'))
    plots, threads = [], []
    for name, flags in (('grpc', ('--target', f'127.0.0.1:{server.grpc}')),
                        ('rest', ('--target', f'127.0.0.1:{server.rest}', '--rest'))):
        plots.append(os.path.join(folder, name + '.svg'))
        threads.append(threading.Thread(target=Load, args=(*flags, '--model', 'half', '-r', '50', '-d', '6',
                                                           '--warm-up', '0', '--plot', plots[-1])))
        threads[-1].start()
    # Both have been answered by version 1 for a second when the other one comes.
    wait_for('requests of both', lambda: requests_of(server, 'GRPC') > 70 and requests_of(server, 'REST') > 70)
    os.rename(os.path.join(folder, 'next'), os.path.join(base, '00000002'))
    for thread in threads:
        thread.join()
    for plot in plots:
        svg = open(plot).read()
        assert '>version 2<' in svg and '>version 1<' not in svg, svg


def requests_of(server, entrypoint):
    """Requests since `server.before` was taken, by the metrics."""
    total = 0
    for line in server.ask('/monitoring/prometheus/metrics')[1].splitlines():
        if line.startswith(':tensorflow:serving:request_latency_count') and f'entrypoint="{entrypoint}"' in line:
            total += float(line.rsplit(' ', 1)[1])
    return total - server.before.get(entrypoint, 0)


def main():
    folder = tempfile.mkdtemp(prefix='load_test.')
    base = os.path.join(folder, 'half')
    os.mkdir(base)
    shutil.copytree(os.path.join(HALF, '00000001'), os.path.join(base, '00000001'))
    monitoring = os.path.join(folder, 'monitoring')
    with open(monitoring, 'w') as f:
        f.write('prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }')
    with Server(ARGS.build, '--model_name=half', f'--model_base_path={base}', '--file_system_poll_wait_seconds=1',
                f'--monitoring_config_file={monitoring}') as server:
        check_every_source(folder, server)
        check_failures_are_told(folder, server)
        server.before = {}
        server.before = {name: requests_of(server, name) for name in ('GRPC', 'REST')}
        check_a_switch_is_marked(folder, base, server)
    shutil.rmtree(folder)
    print('ok')


main()
