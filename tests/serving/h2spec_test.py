"""HTTP/2 judged by h2spec: the session with a server of nothing behind it, which answers every request and so lets
all of h2spec's cases come to an end; and the gRPC port of the model server, whose answer to them is 405. And other
clients: curl and h2load."""
import json, os, subprocess, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import Server

ARGS = harness.arguments()
HALF = os.path.join(harness.models(ARGS.build), 'half')
JUDGE = harness.go_program(ARGS.build, 'h2spec')

# What does not pass, and why that is right.
LARGE_FRAMES = 'h2spec sends 20 kB and takes them for too much; we say that frames may have a megabyte'
NO_BODY = 'an answer with status 405 has no body'
AT_ONCE = 'a request that is answered with 405 at once is not open any more'
FAILED = {
    'responder': {'http2/4.2/3': LARGE_FRAMES},
    'gRPC': {'http2/4.2/3': LARGE_FRAMES, 'generic/2/2': NO_BODY, 'generic/2/3': NO_BODY, 'http2/5.1.2/1': AT_ONCE},
}


class Responder:
    def __enter__(self):
        self.process = subprocess.Popen([os.path.join(ARGS.build, 'tests', 'http2_responder')], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        assert self.process.wait(30) == 0


def verdicts_on(port):
    said = subprocess.run([JUDGE, '--port', str(port)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                          check=True, timeout=140).stdout
    verdicts = [json.loads(line) for line in said.splitlines()]
    assert len(verdicts) == 146, len(verdicts)
    return verdicts, {v['case']: f'{v["what"]}: {v["error"]}' for v in verdicts if v['error']}


def judge(port, failed, skipped):
    """A frame that comes when the connection is closed already is answered with a reset by TCP, and the judge takes
    that for no end of the connection. Where only that is wrong it is asked again, four times at most."""
    for _ in range(5):
        verdicts, errors = verdicts_on(port)
        if not any('connection reset by peer' in error for case, error in errors.items() if case not in failed):
            break
    assert errors.keys() == failed.keys(), errors
    assert sum(v['skipped'] for v in verdicts) == skipped, [v['case'] for v in verdicts if v['skipped']]


def test_the_session_passes_h2spec():
    """All of h2spec, also its strict cases, but for those that are listed with a reason."""
    with Responder() as responder:
        judge(responder.port, FAILED['responder'], 0)


def test_the_grpc_port_passes_h2spec():
    """The same of takt-serving; four cases about bodies cannot be tried there."""
    with Server(ARGS.build, '--model_name=half', f'--model_base_path={HALF}') as server:
        judge(server.grpc, FAILED['gRPC'], 4)
        status, _ = server.ask('/v1/models/half')
        assert status == 200, 'it still serves'


def test_curl_and_h2load_are_answered():
    """curl, and h2load with a thousand requests at ten at once: every answer whole."""
    with Responder() as responder:
        url = f'http://127.0.0.1:{responder.port}/any'
        for more in ([], ['--data', 'x' * 100000]):
            said = subprocess.run(['curl', '-s', '--http2-prior-knowledge', '-w', '%{http_code} %{http_version}', *more, url],
                                  capture_output=True, text=True, timeout=60)
            assert said.stdout == 'hello, whoever you are\n200 2', said
        said = subprocess.run(['h2load', '-n', '1000', '-c', '5', '-m', '10', url], capture_output=True, text=True,
                              timeout=60).stdout
        assert '1000 succeeded, 0 failed, 0 errored' in said, said


harness.run([f for name, f in list(globals().items()) if name.startswith('test_')])
