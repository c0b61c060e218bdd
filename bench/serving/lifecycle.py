"""What loading and unloading costs: resident memory over many cycles, and answers while versions change.

usage: lifecycle.py --build build/release [--cycles 200] [--switches 8] [--json OUT]
Memory: the last quarter's slope says whether it has levelled off. Switches: takt-load asks at a fixed rate
while one version follows the other every second or two, and while nothing changes."""
import argparse, json, os, shutil, statistics, subprocess, sys, tempfile, threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', '..', 'tests', 'serving'))
import harness
from harness import Server, wait_for


def resident_kb(pid):
    for line in open(f'/proc/{pid}/status'):
        if line.startswith('VmRSS:'):
            return int(line.split()[1])


def slope_per_step(values):
    """Of the least-squares line, as a part of the mean."""
    n = len(values)
    x, y = (n - 1) / 2, statistics.fmean(values)
    return sum((i - x) * (v - y) for i, v in enumerate(values)) / sum((i - x) ** 2 for i in range(n)) / y


def memory(build, model, cycles):
    """Resident kB after each cycle of load and unload."""
    base = tempfile.mkdtemp(prefix='lifecycle.')
    shutil.copytree(model, os.path.join(base, 'm', '1'))
    values = []
    with Server(build, '--model_name=keep', f'--model_base_path={base}/m') as server:
        for _ in range(cycles):
            status, text = server.ask('/v2/repository/models/cycled/load',
                                      {'parameters': {'base_path': f'{base}/m'}})
            assert status == 200, text
            status, text = server.ask('/v2/repository/models/cycled/unload', {})
            assert status == 200, text
            wait_for('the model is gone', lambda: server.versions('cycled') == {})
            values.append(resident_kb(server.process.pid))
    shutil.rmtree(base)
    return values


def load(build, server, request_file, rate, seconds):
    """takt-load's figures at a fixed rate; answers count from when they were due."""
    out = request_file + '.json'
    subprocess.run([os.path.join(build, 'bin', 'takt-load'), '--target', f'127.0.0.1:{server.grpc}',
                    '--request', request_file, '-c', '1', '-s', '8', '-r', str(rate), '-d', str(seconds),
                    '--warm-up', '1', '--json', out], check=True, stdout=subprocess.DEVNULL)
    return json.load(open(out))


def switches(build, model, request, count, rate):
    """(during, steady): takt-load's figures while `count` versions follow each other, and while nothing
    changes, on one server."""
    base = tempfile.mkdtemp(prefix='lifecycle.')
    shutil.copytree(model, os.path.join(base, '1'))
    request_file = os.path.join(base, 'request')
    with open(request_file, 'wb') as f:
        f.write(request)
    seconds = 3 * count
    with Server(build, '--model_name=m', f'--model_base_path={base}') as server:
        steady = load(build, server, request_file, rate, seconds)

        def publish():
            for version in range(2, 2 + count):
                staging = os.path.join(base, 'tmp')
                shutil.copytree(model, staging)
                os.rename(staging, os.path.join(base, str(version)))
                server.wait_for_log(f'version {version - 1} unloaded')
        thread = threading.Thread(target=publish)
        thread.start()
        during = load(build, server, request_file, rate, seconds)
        assert not thread.is_alive(), 'the versions did not follow each other in time'
    shutil.rmtree(base)
    return during, steady


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--build', required=True)
    parser.add_argument('--cycles', type=int, default=200)
    parser.add_argument('--switches', type=int, default=8)
    parser.add_argument('--rate', type=float, default=400)
    parser.add_argument('--json')
    args = parser.parse_args()
    half = os.path.join(harness.models(args.build), 'half', '00000002')

    from tensorflow_serving.apis import predict_pb2
    request = predict_pb2.PredictRequest()
    request.model_spec.name = 'm'
    request.inputs['x'].dtype = 1
    request.inputs['x'].tensor_shape.dim.add(size=1)
    request.inputs['x'].float_val.append(2.0)

    out = {}
    if args.cycles:
        values = memory(args.build, half, args.cycles)
        last = values[-max(2, args.cycles // 4):]
        out['memory'] = {'cycles': args.cycles, 'first_mb': values[0] / 1024, 'last_mb': values[-1] / 1024,
                         'slope_percent_per_cycle': 100 * slope_per_step(last)}
        print('resident after 1 / {cycles} cycles: {first_mb:.1f} / {last_mb:.1f} MB; slope of the last '
              'quarter {slope_percent_per_cycle:+.4f} % a cycle'.format(**out['memory']), flush=True)
    if args.switches:
        during, steady = switches(args.build, half, request.SerializeToString(), args.switches, args.rate)
        out['switches'] = {'count': args.switches, 'during': during, 'steady': steady}
        for name in ('steady', 'during'):
            print(name, json.dumps(out['switches'][name]))
    if args.json:
        with open(args.json, 'w') as f:
            json.dump(out, f, indent=1)


main()
