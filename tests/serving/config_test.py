"""Configuration: the model config file and its polling, policies, labels, reload, batching files."""
import json, os, re, shutil, sys, tempfile
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import Server, wait_for

ARGS = harness.arguments()
MODELS = harness.models(ARGS.build)
HALF = os.path.join(MODELS, 'half')  # version 1: x/2 + 2, version 2: x/2 + 3
WORK = tempfile.mkdtemp(prefix='serving_config.')


def entry(name='half', base=HALF, extra=''):
    return f'config {{ name: "{name}" base_path: "{base}" model_platform: "tensorflow" {extra} }} '


def config_file(*entries, path=None):
    """Written at once, so that a poll sees the old file or the new one."""
    path = path or os.path.join(tempfile.mkdtemp(dir=WORK), 'models.config')
    with open(path + '.new', 'w') as f:
        f.write('model_config_list { ' + ''.join(entries) + '}\n')
    os.rename(path + '.new', path)
    return path


def available(server, model='half'):
    return {v for v, state in server.versions(model).items() if state == 'AVAILABLE'}


def reload(server, *entries):
    """(code, message) of HandleReloadConfigRequest."""
    import grpc
    from google.protobuf import text_format
    from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc
    request = model_management_pb2.ReloadConfigRequest()
    text_format.Parse('config { model_config_list { ' + ''.join(entries) + '} }', request)
    stub = model_service_pb2_grpc.ModelServiceStub(server.channel())
    try:
        response = stub.HandleReloadConfigRequest(request, timeout=60)
        return response.status.error_code, response.status.error_message
    except grpc.RpcError as error:
        return error.code().name, error.details()


def failed_start(*flags):
    """What a server that does not start prints."""
    with Server(ARGS.build, *flags, wait=False) as server:
        assert server.process.wait(60) == 1
        for thread in server.threads:
            thread.join(10)
        return server.log()


def test_policies_choose_versions():
    """Latest is the default; all and specific do as they say; two latest are two."""
    for policy, want in (('', {2}), ('model_version_policy { latest { num_versions: 2 } }', {1, 2}),
                         ('model_version_policy { all {} }', {1, 2}),
                         ('model_version_policy { specific { versions: 1 } }', {1})):
        with Server(ARGS.build, '--model_config_file=' + config_file(entry(extra=policy))) as server:
            assert available(server) == want, (policy, server.versions('half'))


def test_labels_name_available_versions():
    """A label answers with its version; one for a version that is not loaded stops the start, unless
    the flag allows new labels; moving a label in use always needs a loaded target."""
    both = 'model_version_policy { all {} } '
    label = lambda name, version: f'version_labels {{ key: "{name}" value: {version} }} '
    with Server(ARGS.build, '--model_config_file=' +
                config_file(entry(extra=both + label('stable', 1) + label('canary', 2)))) as server:
        ask = lambda l: json.loads(server.ask(f'/v1/models/half/labels/{l}:predict',
                                              {'instances': [2.0]})[1])
        assert ask('stable') == {'predictions': [3.0]}
        assert ask('canary') == {'predictions': [4.0]}
        code, message = reload(server, entry(extra=both + label('stable', 7)))
        assert (code, message) == ('FAILED_PRECONDITION',
            'Request to assign label to version 7 of model half, which is not currently available for '
            'inference'), (code, message)
        assert ask('stable') == {'predictions': [3.0]}
        assert reload(server, entry(extra=both + label('stable', 2))) == (0, '')
        assert ask('stable') == {'predictions': [4.0]}
        assert ask('canary') == {'error': 'Unrecognized servable version label: canary'}
    file = config_file(entry(extra=label('next', 7)))
    assert 'Failed to start server. Error: FAILED_PRECONDITION: Request to assign label to version 7' \
        in failed_start(f'--model_config_file={file}')
    with Server(ARGS.build, f'--model_config_file={file}',
                '--allow_version_labels_for_unavailable_models') as server:
        status, text = server.ask('/v1/models/half/labels/next:predict', {'instances': [2.0]})
        assert status == 404 and 'Specific(half, 7)' in text, text
        assert reload(server, entry(extra=label('next', 8)))[0] == 'FAILED_PRECONDITION'


def test_reload_replaces_the_whole_list():
    """What is not in the new list is unloaded, what is new is loaded when the call returns; a wrong
    list changes nothing; a model that cannot be loaded is named and comes when it can."""
    with Server(ARGS.build, '--model_name=half', f'--model_base_path={HALF}') as server:
        assert available(server) == {2}
        wrong = reload(server, entry('a', '/nowhere'), entry('a', '/nowhere'))
        assert wrong == ('INVALID_ARGUMENT', 'Illegal to list model a multiple times in config list')
        assert reload(server, entry('a', 'relative'))[0] == 'INVALID_ARGUMENT'
        assert reload(server, 'config { name: "a" base_path: "/x" model_platform: "caffe" }') == \
            ('FAILED_PRECONDITION', 'PlatformConfigMap has no entry for platform caffe')
        assert available(server) == {2}
        assert reload(server, entry('other', os.path.join(MODELS, 'shapes'))) == (0, '')
        assert available(server, 'other') == {1}
        assert server.predict('half', [1.0]) == 'Servable not found for request: Latest(half)'
        late = os.path.join(WORK, 'late')
        code, message = reload(server, entry('late', late), entry('half'))
        assert (code, message) == ('UNKNOWN', 'Some models did not become available: {late}')
        assert available(server) == {2}
        shutil.copytree(os.path.join(HALF, '00000001'), os.path.join(late, '1'))
        wait_for('late is loaded', lambda: available(server, 'late') == {1})


def test_new_base_path_takes_over_without_a_gap():
    """The same name moves to another base path whose version has the same number: its answers change,
    and none fails meanwhile."""
    moved = os.path.join(WORK, 'moved')
    shutil.copytree(os.path.join(HALF, '00000001'), os.path.join(moved, '2'))
    with Server(ARGS.build, '--model_name=half', f'--model_base_path={HALF}') as server:
        assert server.predict('half', [2.0]) == [4.0]
        assert reload(server, entry(base=moved)) == (0, '')
        assert server.predict('half', [2.0]) == [3.0]
        assert reload(server, entry(base=os.path.join(WORK, 'empty')))[0] == 'UNKNOWN'
        assert server.predict('half', [2.0]) == [3.0]


def test_config_file_is_polled():
    """A changed file is applied, a broken one is refused with its line and leaves everything as it is,
    a mended one is applied."""
    path = config_file(entry(extra='model_version_policy { specific { versions: 1 } }'))
    with Server(ARGS.build, f'--model_config_file={path}',
                '--model_config_file_poll_wait_seconds=1') as server:
        assert available(server) == {1}
        config_file(entry(), path=path)
        wait_for('version 2 serves', lambda: available(server) == {2})
        config_file('config { name: 5 }', path=path)
        server.wait_for_log('Error parsing text-format tensorflow.serving.ModelServerConfig: line 1')
        assert available(server) == {2}
        config_file(entry(extra='model_version_policy { all {} }'), path=path)
        wait_for('both serve', lambda: available(server) == {1, 2})


def test_bad_files_stop_the_start_with_a_reason():
    """Each configuration file that is wrong is named by what is wrong in it."""
    def file(text):
        path = os.path.join(tempfile.mkdtemp(dir=WORK), 'file')
        with open(path, 'w') as f:
            f.write(text)
        return path
    model = ('--model_name=half', f'--model_base_path={HALF}')
    for flags, want in (
            ((), 'Both server_options.model_base_path and server_options.model_config_file are empty!'),
            (('--model_config_file=/nowhere/x',), '/nowhere/x'),
            (('--model_config_file=' + file('nonsense'),),
             'Error parsing text-format tensorflow.serving.ModelServerConfig'),
            ((*model, '--batching_parameters_file=' + file('')), '--enable_batching'),
            ((*model, '--enable_batching', '--batching_parameters_file=' + file('x: 1')),
             'Error parsing text-format tensorflow.serving.BatchingParameters'),
            ((*model, '--enable_batching', '--batching_parameters_file=' +
              file('max_batch_size { value: 8 } allowed_batch_sizes: 4')), 'allowed_batch_sizes'),
            ((*model, '--monitoring_config_file=' + file('prometheus_config { path: "x" }')),
             'prometheus_config'),
            ((*model, '--ssl_config_file=' + file('server_key: "x"')), 'server_cert'),
            ((*model, '--ssl_config_file=' + file('server_key: "x" server_cert: "y"')), 'server_cert is not a PEM'),
            ((*model, '--batching=some'), 'expected "auto", "always" or "off", got "some"'),
            ((*model, '--enable_batching', '--batching=auto'), 'two ways to batch'),
            ((*model, '--mixed_precision=int4'), '--mixed_precision')):
        log = failed_start(*flags)
        assert 'Failed to start server. Error: ' in log and want in log, (flags, log[-600:])


def test_unknown_flags_print_the_usage_and_the_server_goes_on():
    """A flag that nobody knows, and one whose value is no number, are named; flags without a meaning
    here are accepted and say why; the server serves."""
    with Server(ARGS.build, '--model_name=half', f'--model_base_path={HALF}', '--modle_name=x',
                '--grpc_max_threads=3', '--max_num_load_retries=many', '--use_alts_credentials',
                program='tensorflow_model_server') as server:
        assert available(server) == {2}
        for text in ('unknown flag --modle_name; did you mean --model_name?',
                     '--max_num_load_retries: expected a whole number, got "many"',
                     'usage: tensorflow_model_server', '--use_alts_credentials has no meaning here',
                     '--grpc_max_threads has no meaning here'):
            assert text in server.log(), text


def test_platform_config_file_sets_session_and_batching():
    """A PlatformConfigMap's batching, session and tags are used in place of their flags; what has no
    meaning here is named once; one without TensorFlow stops the start."""
    config = os.path.join(WORK, 'platform.config')

    def write(legacy):
        with open(config, 'w') as f:
            f.write('platform_configs { key: "tensorflow" value { source_adapter_config { '
                    '[type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterConfig] { '
                    f'legacy_config {{ {legacy} }} }} }} }} }}')
    flags = ('--model_name=half', f'--model_base_path={HALF}', f'--platform_config_file={config}')
    write('batching_parameters { max_batch_size { value: 2 } } session_target: "x" '
          'session_config { device_count { key: "CPU" value: 1 } allow_soft_placement: true }')
    with Server(ARGS.build, *flags, '--batching_parameters_file=/not/there') as server:
        assert server.predict('half', [1.0, 2.0]) == [3.5, 4.0]
        assert server.predict('half', [1.0, 2.0, 3.0]) == (
            'Task size 3 is larger than maximum input batch size 2')
        assert server.log().count('--platform_config_file: session_target has no meaning here') == 1
    write('saved_model_tags: "train"')
    with Server(ARGS.build, *flags) as server:
        server.wait_for_log('{ train }')
        assert available(server) == set()
    with open(config, 'w') as f:
        f.write('platform_configs { key: "other" value { } }')
    assert 'PlatformConfigMap has no entry for platform tensorflow' in failed_start(*flags)


def test_environment_of_the_container_image():
    """Without flags for the model, MODEL_NAME and MODEL_BASE_PATH say what is served."""
    with Server(ARGS.build, env={'MODEL_NAME': 'half', 'MODEL_BASE_PATH': MODELS}) as server:
        assert available(server) == {2}


def test_batching_serves_the_same_answers():
    """With batching of each kind, many concurrent requests get their own answers; a version's own
    parameters win where they are allowed."""
    from concurrent.futures import ThreadPoolExecutor
    own = os.path.join(WORK, 'own')
    shutil.copytree(os.path.join(HALF, '00000001'), os.path.join(own, '1'))
    with open(os.path.join(own, '1', 'batching_params.pbtxt'), 'w') as f:
        f.write('max_batch_size { value: 2 }')
    parameters = os.path.join(WORK, 'batching.pbtxt')
    with open(parameters, 'w') as f:
        f.write('max_batch_size { value: 16 } batch_timeout_micros { value: 2000 } '
                'max_enqueued_batches { value: 100 } num_batch_threads { value: 2 } '
                'thread_pool_name { value: "own" } allowed_batch_sizes: 4 allowed_batch_sizes: 16 '
                'enable_large_batch_splitting { value: true } pad_variable_length_inputs: true')
    for flags in (('--enable_batching',), (), ('--batching=off',),
                  ('--enable_batching', f'--batching_parameters_file={parameters}'),
                  ('--enable_batching', '--enable_per_model_batching_parameters')):
        with Server(ARGS.build, '--model_name=own', f'--model_base_path={own}', *flags) as server:
            with ThreadPoolExecutor(16) as pool:
                answers = list(pool.map(lambda i: server.predict('own', [float(i)]), range(200)))
            assert answers == [[i / 2 + 2] for i in range(200)], (flags, answers[:5])
            # Three rows are more than the version's own largest batch: refused where that counts.
            three = server.predict('own', [1.0, 2.0, 3.0])
            if '--enable_per_model_batching_parameters' in flags:
                assert isinstance(three, str), three
            else:
                assert three == [2.5, 3.0, 3.5], (flags, three)


def test_requests_share_runs_by_default_where_rows_are_proven_apart():
    """Without a flag, requests that come together run together; those of a model that takes the mean of all
    rows do not, which the log and the metrics say; --batching=always runs them together all the same,
    --batching=off and --enable_batching=false nothing."""
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
    monitoring = os.path.join(WORK, 'monitoring')
    with open(monitoring, 'w') as f:
        f.write('prometheus_config { enable: true }')

    def figure(server, name):
        text = server.ask('/monitoring/prometheus/metrics')[1]
        return float(re.search(rf'^takt_serving_{name}{{.*signature="serving_default".*}} (\S+)$', text, re.M)[1])

    def burst(stub, model):
        """Answers to 100 calls at once, of 1.0, 2.0, 3.0, ..."""
        calls = []
        for i in range(100):
            request = predict_pb2.PredictRequest()
            request.model_spec.name = model
            x = request.inputs['x']
            x.dtype = 1
            x.tensor_shape.dim.add(size=1)
            x.float_val.append(i + 1)
            calls.append(stub.Predict.future(request, timeout=30))
        return [call.result().outputs['y'].float_val[0] for call in calls]

    for model, flags, proven, shares in (
            ('half', (), 1, True), ('mixes', (), 0, False), ('mixes', ('--batching=always',), 0, True),
            ('half', ('--batching=off',), 1, False), ('half', ('--enable_batching=false',), 1, False)):
        with Server(ARGS.build, f'--model_name={model}', f'--model_base_path={MODELS}/{model}',
                    f'--monitoring_config_file={monitoring}', '--event_loop_threads=1', *flags) as server:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(server.channel())
            right = [i / 2 + 3 for i in range(1, 101)] if model == 'half' else [0.0] * 100
            assert figure(server, 'rows_proven_apart') == proven, (model, flags)
            logged = [line for line in server.lines if 'not proven' in line]
            mode = 'run together' if 'always' in str(flags) else 'run one by one'
            assert all(f'"serving_default": requests {mode}, and it is not proven' in line and
                       'Mean "Mean": over dimension 0, where the rows are' in line for line in logged), logged
            assert len(logged) == (model == 'mixes'), logged

            def shared():
                answers = burst(stub, model)
                assert answers == right or (model, shares) == ('mixes', True), (model, flags, answers)
                return figure(server, 'run_rows_total') > figure(server, 'runs_total')
            if shares:
                harness.wait_for('a run of several requests', shared)
            else:
                assert not any(shared() for _ in range(5)), (model, flags)
            if (model, shares) == ('mixes', True):
                harness.wait_for('an answer that depends on others', lambda: burst(stub, model) != right)


try:
    harness.run([f for name, f in list(globals().items()) if name.startswith('test_')])
finally:
    shutil.rmtree(WORK, ignore_errors=True)
