"""What a request costs: our server, the floor below it, and a peer, in one run on one machine.

The floor of a load is what the bare nghttp2 responder takes for the same request and answer sizes at the
same load, plus what TF_SessionRun takes for one request (for a batch of n: a run of n, divided by n).
PEER=/path/to/tensorflow_model_server in the environment adds that server, with its defaults and with batching;
--before BINARY adds an earlier takt-serving, by whose side a change is measured.
usage: bench.py --build DIR [--json FILE] [--quick] [--seconds S] [--repeats N] [--only mnist,cnn,...] [--before BINARY]"""
import argparse
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

LOADS = [(1, 1), (8, 1), (4, 8), (8, 16)]
# Rows of the run that a batched request is measured against, by load.
BATCH = {(4, 8): 8, (8, 16): 32}
libc = ctypes.CDLL(None, use_errno=True)


def cpu_seconds(pid):
    """CPU time of a process with all of its threads."""
    clock = ctypes.c_int()
    if libc.clock_getcpuclockid(pid, ctypes.byref(clock)) != 0:
        raise OSError('no such process')
    return time.clock_gettime(clock.value)


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def resident_kb(pid):
    with open(f'/proc/{pid}/status') as f:
        return int(re.search(r'VmRSS:\s+(\d+)', f.read())[1])


class Process:
    def __init__(self, command, log):
        self.log = open(log, 'w')
        self.child = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        self.pid = self.child.pid

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(20)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.log.close()


class Bench:
    def __init__(self, args):
        self.build = os.path.abspath(args.build)
        self.out = f'{self.build}/bench/serving'
        self.models_dir = f'{self.out}/models'
        self.quick = args.quick
        self.seconds = 1 if args.quick else args.seconds
        self.repeats = 1 if args.quick else args.repeats
        self.peer = os.environ.get('PEER')
        self.before = args.before
        self.results = []
        self.extras = []
        self.running = []
        os.makedirs(self.out, exist_ok=True)
        self.python = f'{self.build}/lib/takt/venv/bin/python'
        packages = subprocess.run([self.python, '-c', 'import sysconfig; print(sysconfig.get_paths()["purelib"])'],
                                  check=True, capture_output=True, text=True).stdout.strip()
        self.tensorflow = f'{packages}/tensorflow'
        if not os.path.exists(f'{self.models_dir}/models.json'):
            script = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'export_models.py')
            subprocess.run([self.python, script, self.models_dir, '--large'], check=True, capture_output=True)
        with open(f'{self.models_dir}/models.json') as f:
            self.models = json.load(f)

    def start(self, name, command):
        process = Process(command, f'{self.out}/{name}.log')
        self.running.append(process)
        return process

    def stop(self, process):
        process.stop()
        self.running.remove(process)

    def stop_all(self):
        for process in list(self.running):
            self.stop(process)

    def serve(self, model, *flags, binary=None, base=None):
        """Starts a server of one model and waits until it answers: (process, gRPC port, REST port, seconds)."""
        port, rest = free_port(), free_port()
        begin = time.monotonic()
        process = self.start(f'server_{port}', [
            binary or f'{self.build}/bin/takt-serving', f'--port={port}', f'--rest_api_port={rest}',
            f'--model_name={model}', f'--model_base_path={base or f"{self.models_dir}/{model}"}', *flags])
        request = f'{self.models_dir}/{model}/request.bin'
        while True:
            asked = subprocess.run([f'{self.build}/bin/takt-load', '--target', f'127.0.0.1:{port}', '--request', request,
                                    '-d', '0.001', '--warm-up', '0'], capture_output=True)
            if asked.returncode == 0:
                return process, port, rest, time.monotonic() - begin
            if process.child.poll() is not None or time.monotonic() - begin > 60:
                raise RuntimeError(f'{model}: the server does not answer; see {process.log.name}')
            time.sleep(0.01)

    def load(self, pid, port, model, connections, streams, *more, seconds=None, request=None):
        out = f'{self.out}/load.json'
        subprocess.run([f'{self.build}/bin/takt-load', '--target', f'127.0.0.1:{port}', '--request',
                        request or f'{self.models_dir}/{model}/request.bin', '-c', str(connections), '-s', str(streams), '-d',
                        str(seconds or self.seconds), '--warm-up', '0.5', '--server-pid', str(pid), '--json', out, *more],
                       check=True, capture_output=True)
        with open(out) as f:
            return json.load(f)

    def bare_run(self, model, rows):
        shape = ','.join(str(d) for d in [rows] + self.models[model]['row_shape'])
        runs = [float(subprocess.run(
            [f'{self.build}/bench/bench_floor', 'run', '--tensorflow', self.tensorflow, '--model',
             f'{self.models_dir}/{model}/1', '--feed', self.models[model]['feed'], '--fetch', self.models[model]['fetch'],
             '--shape', shape, '--seconds', '0.5' if self.quick else '1'], check=True, capture_output=True, text=True).stdout)
            for _ in range(1 if self.quick else 3)]
        return statistics.median(runs)

    def row(self, what, model, load, reports, floor=None, note=''):
        cpu = [r['server_cpu_us_per_request'] for r in reports]
        row = {'what': what, 'model': model, 'load': load, 'cpu_us': round(statistics.median(cpu), 2),
               'cpu_us_min': round(min(cpu), 2), 'cpu_us_max': round(max(cpu), 2),
               'per_second': round(statistics.median(r['per_second'] for r in reports))}
        for p in ('p50', 'p99', 'p99.9'):
            row[p + '_us'] = round(statistics.median(r['latency_us'][p] for r in reports), 1)
        if floor:
            row['floor_us'] = round(floor, 2)
            row['ratio'] = round(row['cpu_us'] / floor, 2)
        self.results.append(row)
        print(f"{model:12} {load:14} {what:22} {row['cpu_us']:9.2f} [{row['cpu_us_min']:.2f}, {row['cpu_us_max']:.2f}]"
              f" {row['per_second']:9} {row['p50_us']:9.0f} {row['p99_us']:9.0f} {row['p99.9_us']:9.0f}"
              f" {row.get('ratio', ''):>6} {note}", flush=True)
        return row

    def compare(self, model, loads):
        plain, plain_port, _, _ = self.serve(model, '--event_loop_threads=1', '--batching=off')
        auto, auto_port, _, _ = self.serve(model, '--event_loop_threads=1')
        answer = self.load(plain.pid, plain_port, model, 1, 1, seconds=0.2)['answer_bytes']
        floor_port = free_port()
        responder = self.start('responder', [f'{self.build}/bench/bench_floor', 'responder', '--port', str(floor_port),
                                             '--answer', str(answer)])
        subjects = [('bare responder', responder, floor_port), ('ours, batching=off', plain, plain_port),
                    ('ours', auto, auto_port)]
        if self.before:
            for name, batching in (('before, batching=off', 'off'), ('before', 'auto')):
                before, before_port, _, _ = self.serve(model, '--event_loop_threads=1', f'--batching={batching}',
                                                       binary=self.before)
                subjects.append((name, before, before_port))
        if self.peer:
            peer, peer_port, _, _ = self.serve(model, '--grpc_max_threads=512', binary=self.peer)
            subjects.append(('peer', peer, peer_port))
            batching = f'{self.out}/batching.txt'
            with open(batching, 'w') as f:
                f.write('max_batch_size { value: 32 } batch_timeout_micros { value: 0 }\n'
                        'num_batch_threads { value: 2 } max_enqueued_batches { value: 1000 }\n')
            peer, peer_port, _, _ = self.serve(model, '--grpc_max_threads=512', '--enable_batching',
                                               f'--batching_parameters_file={batching}', binary=self.peer)
            subjects.append(('peer, batching', peer, peer_port))
        runs = {rows: self.bare_run(model, rows) for rows in sorted({1} | {BATCH.get(l, 1) for l in loads})}
        for rows, us in runs.items():
            self.extras.append({'what': 'bare TF_SessionRun', 'model': model, 'rows': rows, 'cpu_us': us})
            print(f'{model:12} {"":14} {f"bare run of {rows}":22} {us:9.2f}', flush=True)
        capacity = 0
        for connections, streams in loads:
            load = f'{connections}x{streams}'
            reports = {name: [] for name, _, _ in subjects}
            for _ in range(self.repeats):  # side by side, so that what the machine does besides hits all
                for name, process, port in subjects:
                    reports[name].append(self.load(process.pid, port, model, connections, streams))
            respond = self.row('bare responder', model, load, reports['bare responder'])['cpu_us']
            alone = 'ours, batching=off'
            self.row(alone, model, load, reports[alone], respond + runs[1])
            rows = BATCH.get((connections, streams), 1)
            capacity = self.row('ours', model, load, reports['ours'],
                                respond + runs[rows] / rows)['per_second']
            for name in reports:
                if name.startswith(('peer', 'before')):
                    rows_of_run = rows if name.endswith('auto') else 1
                    self.row(name, model, load, reports[name], respond + runs[rows_of_run] / rows_of_run)
        if model == 'mnist':
            for share in (50, 80):
                rate = capacity * share // 100
                reports = [self.load(auto.pid, auto_port, model, 8, 64, '--rate', str(rate))
                           for _ in range(self.repeats)]
                self.row('ours', model, f'open {share}%', reports, note=f'at {rate} a second')
        self.stop_all()

    def extra(self, what, **figures):
        self.extras.append({'what': what, **figures})
        print(f'{what}: ' + ', '.join(f'{k} {v}' for k, v in figures.items()), flush=True)

    def rest(self):
        """Row form over HTTP/1.1, against gRPC at the same number of requests at once."""
        server, port, rest, _ = self.serve('mnist', '--event_loop_threads=1', '--rest_api_num_threads=1', '--batching=off')
        body = f'{self.out}/rest.json'
        with open(body, 'w') as f:
            json.dump({'instances': [[round((i % 7) / 7, 6) for i in range(784)]]}, f)
        for connections in (1, 8, 32):
            rest_cpu = [self.load(server.pid, rest, 'mnist', connections, 1, '--rest', '--model', 'mnist',
                                  request=body)['server_cpu_us_per_request'] for _ in range(self.repeats)]
            grpc = [self.load(server.pid, port, 'mnist', connections, 1)['server_cpu_us_per_request']
                    for _ in range(self.repeats)]
            self.extra(f'REST rows, {connections} connections', cpu_us=round(statistics.median(rest_cpu), 1),
                       grpc_cpu_us=round(statistics.median(grpc), 1),
                       ratio=round(statistics.median(rest_cpu) / statistics.median(grpc), 2))
        self.stop_all()

    def overload(self, model, load, timeout):
        """Three times as many requests a second as the server can answer, with batching and without."""
        for batching in ('off', 'auto'):
            self.overload_of(model, load, timeout, batching, '', None)
            if self.before:
                self.overload_of(model, load, timeout, batching, 'before, ', self.before)

    def overload_of(self, model, load, timeout, batching, name, binary):
        server, port, _, _ = self.serve(model, '--event_loop_threads=1', f'--batching={batching}',
                                        '--tensorflow_intra_op_parallelism=1', binary=binary)
        out = f'{self.out}/overload.json'

        def ask(*flags):
            subprocess.run([f'{self.build}/bin/takt-load', '--target', f'127.0.0.1:{port}', '--request',
                            f'{self.models_dir}/{model}/request.bin', '-d', str(self.seconds), '--timeout-ms',
                            str(timeout), '--json', out, *flags], capture_output=True)
            with open(out) as f:
                return json.load(f)
        capacity = statistics.median(ask('-c', str(load[0]), '-s', str(load[1]))['answered_per_second']
                                     for _ in range(self.repeats))
        reports = [ask('-c', '16', '-s', '1000', '--rate', str(int(3 * capacity))) for _ in range(self.repeats)]

        def middle(get):
            return statistics.median(get(r) for r in reports)
        self.extra(f'3 x capacity, {name}{model}, batching={batching}', capacity=round(capacity),
                   goodput=round(middle(lambda r: r['answered_per_second']) / capacity, 2),
                   refused_per_second=round(middle(lambda r: sum(r['errors'].values()) / r['seconds'])),
                   refusal_p50_ms=round(middle(lambda r: r.get('error_latency_us', {}).get('p50', 0)) / 1000, 1),
                   refusal_p99_ms=round(middle(lambda r: r.get('error_latency_us', {}).get('p99', 0)) / 1000, 1),
                   answer_p99_ms=round(middle(lambda r: r['latency_us']['p99']) / 1000, 1),
                   timed_out=sum(r['errors'].get('DEADLINE_EXCEEDED', 0) for r in reports),
                   codes='/'.join(sorted({code for r in reports for code in r['errors']})))
        self.stop_all()

    def two_loops(self):
        rates = {}
        for loops in (1, 2):
            server, port, _, _ = self.serve('cnn', f'--event_loop_threads={loops}', '--tensorflow_intra_op_parallelism=1',
                                            '--batching=off')
            rates[loops] = statistics.median(self.load(server.pid, port, 'cnn', 8, 4)['per_second'] for _ in range(self.repeats))
            self.stop_all()
        self.extra('two loops against one, cnn', one=round(rates[1]), two=round(rates[2]), ratio=round(rates[2] / rates[1], 2))

    def idle(self):
        server, port, _, ready = self.serve('mnist')
        seconds = 2 if self.quick else 10
        time.sleep(1)
        before = cpu_seconds(server.pid)
        time.sleep(seconds)
        self.extra('ready and idle', ready_seconds=round(ready, 2), resident_mb=round(resident_kb(server.pid) / 1024),
                   idle_percent=round((cpu_seconds(server.pid) - before) / seconds * 100, 2))
        self.stop_all()

    def version_switch(self, model):
        """400 requests a second while one version replaces the other, again and again; before each switch as
        long while nothing changes, so that what else the machine does meets both alike."""
        with tempfile.TemporaryDirectory() as base:
            shutil.copytree(f'{self.models_dir}/{model}/1', f'{base}/1')
            server, port, _, _ = self.serve(model, '--file_system_poll_wait_seconds=1', base=base)
            steady, during, failed = [], [], 0
            for version in range(2, 3 if self.quick else 9):
                shutil.copytree(f'{self.models_dir}/{model}/1', f'{base}/.{version}')
                steady.append(self.load(server.pid, port, model, 2, 8, '--rate', '400', seconds=5))
                publish = threading.Timer(1, os.rename, (f'{base}/.{version}', f'{base}/{version}'))
                publish.start()
                during.append(self.load(server.pid, port, model, 2, 8, '--rate', '400', seconds=5))
                publish.join()
                failed += sum(during[-1]['errors'].values())
            p99 = [[report['latency_us']['p99'] for report in reports] for reports in (steady, during)]
            ratios = sorted(d / s for s, d in zip(*p99))
            self.extra(f'version switch at 400 a second, {model}', steady_p99_us=round(statistics.median(p99[0])),
                       switch_p99_us=round(statistics.median(p99[1])), ratio=round(statistics.median(ratios), 2),
                       ratios=[round(ratio, 2) for ratio in ratios], failed=failed)
            self.stop_all()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--build', required=True)
    parser.add_argument('--json')
    parser.add_argument('--quick', action='store_true')
    parser.add_argument('--seconds', type=float, default=3, help='of each load')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--before', metavar='BINARY', help='an earlier takt-serving, measured beside this one')
    parser.add_argument('--only', default='mnist,cnn,megabyte,transformer,rest,overload,loops,idle,switch')
    args = parser.parse_args()
    os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
    only = args.only.split(',')
    bench = Bench(args)
    print(f"{'model':12} {'load':14} {'what':22} {'CPU us':>9} {'[min, max]':14} {'req/s':>7} {'p50 us':>9} {'p99 us':>9}"
          f" {'p99.9 us':>9} {'/floor':>6}")
    try:
        for model, loads in (('mnist', LOADS), ('cnn', [(1, 1), (8, 16)]), ('megabyte', [(1, 1), (8, 16)]),
                             ('transformer', [(1, 1), (2, 2)])):
            if model in only:
                bench.compare(model, loads[:1] + loads[-1:] if args.quick else loads)
        if 'rest' in only:
            bench.rest()
        # Quick models, and one whose runs take so long that each call has a deadline.
        for model, load, timeout in (('mnist', (8, 16), 0), ('cnn', (8, 16), 0), ('transformer', (2, 2), 500)):
            if 'overload' in only or f'overload-{model}' in only:
                bench.overload(model, load, timeout)
        if 'loops' in only:
            bench.two_loops()
        if 'idle' in only:
            bench.idle()
        if 'switch' in only:
            bench.version_switch('mnist')
            bench.version_switch('cnn')
    finally:
        bench.stop_all()
    if args.json:
        with open(args.json, 'w') as f:
            json.dump({'results': bench.results, 'extras': bench.extras}, f, indent=1)


if __name__ == '__main__':
    main()
