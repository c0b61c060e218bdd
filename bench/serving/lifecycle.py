"""What loading and unloading costs: resident memory over many cycles, and answers while versions change.

usage: lifecycle.py --build build/release [--cycles 200] [--switches 8] [--json OUT]
Prints a table. Memory: the last quarter's slope says whether it has levelled off. Switches: one client asks
at a fixed rate (late answers count from when they were due); p99 of the seconds around a switch against p99
of the others."""
import argparse, json, os, shutil, statistics, sys, tempfile, threading, time

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


def switches(build, model, request, count, rate):
    """(milliseconds of answers around switches, of the others, failed)"""
    import grpc
    base = tempfile.mkdtemp(prefix='lifecycle.')
    shutil.copytree(model, os.path.join(base, '1'))
    answers, failed, stop = [], [], threading.Event()
    marks = []
    with Server(build, '--model_name=m', f'--model_base_path={base}') as server:
        call = server.channel().unary_unary('/tensorflow.serving.PredictionService/Predict')

        def ask():
            due = time.monotonic()
            while not stop.is_set():
                due += 1 / rate
                time.sleep(max(0, due - time.monotonic()))
                try:
                    call(request, timeout=10)
                    answers.append((due, (time.monotonic() - due) * 1e3))
                except grpc.RpcError as error:
                    failed.append(error.code().name)
        thread = threading.Thread(target=ask)
        thread.start()
        for version in range(2, 2 + count):
            steady_from = time.monotonic()
            wait_for('two steady seconds', lambda: time.monotonic() > steady_from + 2)
            staging = os.path.join(base, 'tmp')
            shutil.copytree(model, staging)
            begin = time.monotonic()
            os.rename(staging, os.path.join(base, str(version)))
            server.wait_for_log(f'version {version - 1} unloaded')
            marks.append((begin, time.monotonic()))
        stop.set()
        thread.join()
    shutil.rmtree(base)
    during = [ms for due, ms in answers if any(a <= due <= b for a, b in marks)]
    steady = [ms for due, ms in answers if not any(a <= due <= b for a, b in marks)]
    return during, steady, failed


def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * p / 100))]


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
        during, steady, failed = switches(args.build, half, request.SerializeToString(), args.switches,
                                          args.rate)
        out['switches'] = {'count': args.switches, 'answers_during': len(during), 'failed': len(failed),
                           'p99_during_ms': percentile(during, 99), 'p99_steady_ms': percentile(steady, 99),
                           'max_during_ms': max(during), 'max_steady_ms': max(steady)}
        print('{count} switches at {rate:.0f} requests/s: p99 {p99_during_ms:.2f} ms during, '
              '{p99_steady_ms:.2f} ms steady; max {max_during_ms:.2f} / {max_steady_ms:.2f} ms; {failed} '
              'failed'.format(rate=args.rate, **out['switches']))
    if args.json:
        with open(args.json, 'w') as f:
            json.dump(out, f, indent=1)


main()
