"""Models in an object store: a real one (VersityGW, whose objects curl puts there), and one that is made here
for what the real one cannot be made to do: uploads that stop half way, listings of two entries a page,
temporary credentials, a store that is down. Ours keeps objects in a dictionary and refuses requests whose AWS
signature (recomputed from the published rules) does not fit."""
import hashlib, hmac, http.server, os, shutil, socket, subprocess, sys, tempfile, threading, urllib.parse
import urllib.request
from xml.sax.saxutils import escape
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import Server, wait_for

ARGS = harness.arguments()
HALF = os.path.join(harness.models(ARGS.build), 'half')  # version 1: x/2 + 2, version 2: x/2 + 3
KEY, SECRET, TOKEN, REGION = 'key', 'a/secret+', 'token', 'eu-test-1'
PAGE = 2


def signature_fits(method, path, query, headers):
    """docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html"""
    authorization = headers.get('authorization', '')
    if not authorization.startswith('AWS4-HMAC-SHA256 '):
        return False
    parts = dict(p.strip().split('=', 1) for p in authorization[len('AWS4-HMAC-SHA256 '):].split(','))
    key, day, region, service, end = parts['Credential'].split('/')
    signed = parts['SignedHeaders'].split(';')
    if (key, region, service, end) != (KEY, REGION, 's3', 'aws4_request') or \
            not {'host', 'x-amz-date', 'x-amz-content-sha256', 'x-amz-security-token'} <= set(signed):
        return False
    pairs = sorted(urllib.parse.parse_qsl(query, keep_blank_values=True))
    quote = lambda text: urllib.parse.quote(text, safe='-_.~')
    canonical = '\n'.join([
        method, urllib.parse.quote(urllib.parse.unquote(path), safe='/-_.~'),
        '&'.join(f'{quote(k)}={quote(v)}' for k, v in pairs),
        ''.join(f'{name}:{" ".join(headers[name].split())}\n' for name in signed),
        ';'.join(signed), headers['x-amz-content-sha256']])
    to_sign = '\n'.join(['AWS4-HMAC-SHA256', headers['x-amz-date'], f'{day}/{region}/{service}/{end}',
                         hashlib.sha256(canonical.encode()).hexdigest()])
    key = ('AWS4' + SECRET).encode()
    for part in (day, region, service, end, to_sign):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key.hex() == parts['Signature'] and headers['x-amz-security-token'] == TOKEN


class Store(http.server.ThreadingHTTPServer):
    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.objects, self.refused, self.pages, self.down = {}, 0, 0, False
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def put(self, version, source, skip=()):
        """A version as an upload brings it: one object after the other."""
        root = os.path.join(HALF, f'{source:08d}')
        for folder, _, names in os.walk(root):
            for name in sorted(names):
                path = os.path.join(folder, name)
                if name not in skip:
                    self.objects[f'models/a b/{version}/{os.path.relpath(path, root)}'] = \
                        open(path, 'rb').read()


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def answer(self, status, body):
        self.send_response(status)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        store = self.server
        path, _, query = self.path.partition('?')
        headers = {name.lower(): value for name, value in self.headers.items()}
        if store.down:
            return self.answer(503, b'<Error><Code>SlowDown</Code></Error>')
        if not signature_fits('GET', path, query, headers):
            store.refused += 1
            return self.answer(403, b'<Error><Code>SignatureDoesNotMatch</Code></Error>')
        bucket, _, key = urllib.parse.unquote(path)[1:].partition('/')
        if bucket != 'bucket':
            return self.answer(404, b'<Error><Code>NoSuchBucket</Code></Error>')
        if key:
            found = store.objects.get(key)
            return self.answer(200, found) if found is not None else self.answer(
                404, b'<Error><Code>NoSuchKey</Code></Error>')
        asked = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        prefix, delimiter = asked['prefix'], asked.get('delimiter', '')
        entries = set()
        for name in store.objects:
            if name.startswith(prefix):
                rest = name[len(prefix):]
                cut = rest.find(delimiter) if delimiter else -1
                entries.add((prefix + rest[:cut + 1], True) if cut >= 0 else (name, False))
        entries = sorted(entries)
        start = int(asked.get('continuation-token', 0))
        store.pages += start > 0
        body = '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        for name, common in entries[start:start + PAGE]:
            if common:
                body += f'<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>'
            else:
                data = store.objects[name]
                body += (f'<Contents><Key>{escape(name)}</Key><Size>{len(data)}</Size>'
                         f'<ETag>&quot;{hashlib.md5(data).hexdigest()}&quot;</ETag></Contents>')
        if start + PAGE < len(entries):
            body += (f'<IsTruncated>true</IsTruncated><NextContinuationToken>{start + PAGE}'
                     '</NextContinuationToken>')
        self.answer(200, (body + '</ListBucketResult>').encode())


def serve(store, secret=SECRET):
    return Server(ARGS.build, '--model_name=half', '--model_base_path=s3://bucket/models/a b', env={
        'AWS_ACCESS_KEY_ID': KEY, 'AWS_SECRET_ACCESS_KEY': secret, 'AWS_SESSION_TOKEN': TOKEN,
        'AWS_REGION': REGION, 'AWS_ENDPOINT_URL': f'http://127.0.0.1:{store.server_port}'})


def test_versions_in_a_bucket_are_served_and_followed():
    """A version is loaded from the bucket; an upload that is under way is waited for; the finished one takes
    over; a store that is down unloads nothing."""
    store = Store()
    store.objects['models/a b/tmp-7/saved_model.pb'] = b'x'
    store.put('00000001', 1)
    with serve(store) as server:
        wait_for('version 1 answers', lambda: server.predict('half', [2.0]) == [3.0])
        store.put('00000002', 2, skip=('variables.data-00000-of-00001',))
        server.wait_for_log('version 2 is not complete')
        assert server.predict('half', [2.0]) == [3.0]
        store.put('00000002', 2)
        wait_for('version 2 answers', lambda: server.predict('half', [2.0]) == [4.0])
        store.down = True
        server.wait_for_log('SlowDown; keeps serving version 2')
        assert server.predict('half', [2.0]) == [4.0]
        assert store.refused == 0 and store.pages > 0
    store.shutdown()


def test_wrong_credentials_are_named():
    """The store refuses the signature: the server says so and waits."""
    store = Store()
    store.put('1', 1)
    with serve(store, secret='wrong') as server:
        server.wait_for_log('HTTP 403 SignatureDoesNotMatch')
        status, text = server.ask('/v2/health/ready')
        assert status == 503 and 'SignatureDoesNotMatch' in text, text
    assert store.refused > 0
    store.shutdown()


class RealStore:
    """VersityGW on a free port over a directory of its own, with one empty bucket. It checks signatures."""
    KEY, SECRET, REGION = 'someone', 'a/real+secret', 'eu-test-1'

    def __enter__(self):
        program = harness.go_program(ARGS.build, 'object_store', 'github.com/versity/versitygw/cmd/versitygw')
        self.place = tempfile.mkdtemp(prefix='serving_store.')
        for name in ('data', 'meta', 'users'):
            os.mkdir(os.path.join(self.place, name))
        with socket.socket() as free:  # it does not say which port it took: it is given one
            free.bind(('127.0.0.1', 0))
            self.port = free.getsockname()[1]
        of = lambda name: os.path.join(self.place, name)
        self.process = subprocess.Popen(
            [program, '--quiet', '--port', f'127.0.0.1:{self.port}', '--access', self.KEY, '--secret', self.SECRET,
             '--region', self.REGION, '--health', '/health', '--iam-dir', of('users'), 'posix', '--sidecar', of('meta'),
             of('data')], stdout=subprocess.DEVNULL)

        def up():
            assert self.process.poll() is None, 'the store ended'
            try:
                return urllib.request.urlopen(f'http://127.0.0.1:{self.port}/health', timeout=5).status == 200
            except OSError:
                return False
        wait_for('the store answers', up)
        self.request('PUT', '')
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.place)

    def request(self, method, key, *options, body=b''):
        digest = hashlib.sha256(body).hexdigest()
        done = subprocess.run(
            ['curl', '-sS', '--fail-with-body', '--aws-sigv4', f'aws:amz:{self.REGION}:s3', '--user',
             f'{self.KEY}:{self.SECRET}', '-X', method, '-H', f'x-amz-content-sha256: {digest}', *options,
             f'http://127.0.0.1:{self.port}/bucket/{key}'], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr

    def put(self, version, source):
        """The graph last, as an uploader that knows its readers does; any order serves."""
        root = os.path.join(HALF, f'{source:08d}')
        for folder, _, names in os.walk(root, topdown=False):
            for name in sorted(names):
                path = os.path.join(folder, name)
                self.request('PUT', f'models/m-1_2/{version}/{os.path.relpath(path, root)}',
                             '--data-binary', f'@{path}', '-H', 'Content-Type: application/octet-stream',
                             body=open(path, 'rb').read())

    def serve(self, key=KEY, secret=SECRET, bucket='bucket', region=REGION):
        return Server(ARGS.build, '--model_name=half', f'--model_base_path=s3://{bucket}/models/m-1_2', env={
            'AWS_ACCESS_KEY_ID': key, 'AWS_SECRET_ACCESS_KEY': secret, 'AWS_REGION': region,
            'AWS_ENDPOINT_URL': f'http://127.0.0.1:{self.port}'})


def test_versions_in_a_real_store_are_served_and_followed():
    """From a store of another make: the first version is loaded, a second one takes over while it serves,
    and goes again when its objects are deleted."""
    with RealStore() as store:
        store.put('00000001', 1)
        with store.serve() as server:
            wait_for('version 1 answers', lambda: server.predict('half', [2.0]) == [3.0])
            store.put('00000002', 2)
            wait_for('version 2 answers', lambda: server.predict('half', [2.0]) == [4.0])
            for folder, _, names in os.walk(os.path.join(HALF, '00000002')):
                for name in names:
                    key = os.path.relpath(os.path.join(folder, name), HALF)
                    store.request('DELETE', f'models/m-1_2/{key}')
            wait_for('version 1 answers again', lambda: server.predict('half', [2.0]) == [3.0])


def test_a_real_store_refuses_what_is_wrong_and_the_server_says_so():
    """A key that nobody has, a wrong secret, another region, a bucket that is not there: the reason is in the
    log and in readiness."""
    with RealStore() as store:
        store.put('1', 1)
        for options, said in (({'key': 'nobody'}, 'InvalidAccessKeyId'), ({'secret': 'x'}, 'SignatureDoesNotMatch'),
                              ({'region': 'us-east-1'}, 'AuthorizationHeaderMalformed'),
                              ({'bucket': 'none'}, 'NoSuchBucket')):
            with store.serve(**options) as server:
                server.wait_for_log(said)
                status, text = server.ask('/v2/health/ready')
                assert status == 503 and said in text, text


harness.run([f for name, f in list(globals().items()) if name.startswith('test_')])
