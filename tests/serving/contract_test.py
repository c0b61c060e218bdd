"""docs/serving-contract.md is kept true: each test that it names is there, each flag of the server is in it."""
import os, re, subprocess, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness

ARGS = harness.arguments()
PAGE = open(os.path.join(ARGS.source, 'docs', 'serving-contract.md')).read()


def rows():
    """(promise, [(file, test)]) of each row of the page's tables."""
    for line in PAGE.splitlines():
        found = re.fullmatch(r'\| (.+) \| (.+) \|', line)
        if not found or found[2] == 'tests':
            continue
        file, tests = None, []
        for part in found[2].split(', '):
            named = re.fullmatch(r'(?:`([\w.]+)` )?([\w.]+)(?: \(.*\))?', part)
            assert named, f'not "`file` test": {part}'
            file = named[1] or file
            assert file, f'in no file: {part}'
            tests.append((file, named[2]))
        yield found[1], tests


def files():
    """{name: text} of the tests of the server and of what it stands on."""
    texts = {}
    for top in ('src/base', 'src/net', 'src/serving', 'tests/serving'):
        for folder, _, names in os.walk(os.path.join(ARGS.source, top)):
            for name in names:
                if name.endswith(('_test.cc', '_test.py')):
                    texts[name] = texts.get(name, '') + open(os.path.join(folder, name)).read()
    return texts


def test_each_test_that_the_page_names_is_there():
    """By its file and name."""
    texts, missing = files(), []
    for promise, tests in rows():
        for file, test in tests:
            suite, _, name = test.rpartition('.')
            pattern = rf'^TEST(_F|_P)?\({suite}, {name}\)' if file.endswith('.cc') else rf'^def {test}\('
            if not re.search(pattern, texts.get(file, ''), re.M):
                missing.append(f'{promise}: {file} {test}')
    assert not missing, '\n'.join(missing)
    assert len(list(rows())) > 50


def test_each_flag_is_in_the_page():
    """What the usage lists, the page's first section lists."""
    usage = subprocess.run([os.path.join(ARGS.build, 'bin', 'takt-serving'), '--version', '--no-such-flag'],
                           capture_output=True, text=True, timeout=60).stdout
    flags = set(re.findall(r'^  --(\w+)=', usage, re.M))
    assert len(flags) > 40, usage
    section = PAGE[PAGE.index('# Flags'):PAGE.index('# gRPC')]
    assert flags - set(re.findall(r'`(\w+)`', section)) == set()


harness.run([f for name, f in list(globals().items()) if name.startswith('test_')])
