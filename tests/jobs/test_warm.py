"""A job that is forked from a warm process is the same as one that is started by itself."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from project import PROJECT
from watching import wait_for

from issl.jobs import handover, warm

PROGRAM = PROJECT / "tests/warm_program.py"
FORKED = "from issl.jobs import handover; print(handover.forked)"


@pytest.fixture(autouse=True)
def as_snakemake_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.setenv(handover.WARM, "")  # so that it is put back
    for name in handover.THREADS:
        monkeypatch.setenv(name, "1")


@pytest.fixture(autouse=True)
def signals_as_of_a_terminal():
    """A shell ignores these two in what it starts in the background, and so would every program that a test starts."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGQUIT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def begin():
    """Starts a warm process; those that a test has started end with it."""
    begun = []

    def start():
        os.environ.pop("PYTEST_CURRENT_TEST", None)  # differs between the test and its fixtures
        begun.append(warm.begin((str(PROGRAM),)))
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.wait()


@pytest.fixture
def server(as_snakemake_has_it, begin):
    return begin()


def call(code, warmly=True, **options):
    """A job that is started and not yet waited for."""
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    environment = {name: value for name, value in os.environ.items() if warmly or name != handover.WARM}
    environment |= options.pop("env", {})
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), "prepare", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


def outcome(code, warmly=True, **options):
    process = call(code, warmly, **options)
    out, err = process.communicate("asked\nand answered\n", timeout=60)
    return process.returncode, out, err


def is_forked(**options):
    status, out, err = outcome(FORKED, **options)
    assert (status, err) == (0, ""), err
    return out == "True\n"


STATE = """
import json, os, resource, signal, subprocess, sys, tempfile, threading
print(json.dumps({
    "argv": sys.argv, "folder": os.getcwd(), "path": sys.path, "flags": list(sys.flags),
    "environment": {k: v for k, v in os.environ.items() if k not in ("ISSL_WARM", "LC_CTYPE")},
    "its children's": sorted(line for line in subprocess.check_output("env").decode("latin-1").splitlines()
                             if line.partition("=")[0] not in ("ISSL_WARM", "LC_CTYPE")),
    "umask": os.umask(0o77), "temporary": tempfile.gettempdir(), "input": sys.stdin.readline(),
    "signals": [str(signal.getsignal(n)) for n in sorted(signal.valid_signals() - {32, 33})],
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "streams": [(s.encoding, s.errors, s.line_buffering) for s in (sys.stdin, sys.stdout, sys.stderr)],
    "threads": threading.active_count(), "main": threading.current_thread().name,
    "files": sorted(n for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}")),
    "limits": resource.getrlimit(resource.RLIMIT_NOFILE), "module": sys.modules["__main__"].__file__,
}))
print("to stderr", file=sys.stderr)
"""


@pytest.mark.parametrize("ignored", [signal.SIGHUP, None])
def test_it_begins_in_the_same_state(server, ignored, tmp_path):
    for name, value in {"TMPDIR": str(tmp_path), "ISSL_SOMETHING": "\udcff é"}.items():
        os.environ[name] = value
    before = os.umask(0o27)
    handler = ignored and signal.signal(ignored, signal.SIG_IGN)
    try:
        forked, alone = outcome(STATE, cwd="/"), outcome(STATE, warmly=False, cwd="/")
        assert is_forked()
    finally:
        os.umask(before)
        if ignored:
            signal.signal(ignored, handler)
        del os.environ["ISSL_SOMETHING"], os.environ["TMPDIR"]
    assert (forked[0], forked[2]) == (alone[0], alone[2]) == (0, "to stderr\n")
    assert json.loads(forked[1]) == json.loads(alone[1])


ENDS = {
    "value": "import sys; sys.exit(3)",
    "message": "import sys; sys.exit('what went wrong')",
    "error": "print('some'); raise ValueError('unexpected')",
    "interrupt": "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "terminated": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "at exit": "import atexit; atexit.register(print, 'at exit'); print('first')",
    "thread": "import threading, time; threading.Timer(0.2, print, ['late']).start(); print('first')",
    "at once": "import os; os._exit(9)",
}


@pytest.mark.parametrize("code", ENDS.values(), ids=ENDS)
def test_it_ends_in_the_same_way(server, code):
    forked, alone = outcome(code), outcome(code, warmly=False)
    assert forked[:2] == alone[:2]
    assert forked[2].splitlines()[-1:] == alone[2].splitlines()[-1:]  # a traceback has other frames
    assert is_forked()


WAITS = """
import signal, sys, time
def handle(number, _):
    print(signal.Signals(number).name, flush=True)
    sys.exit(5)
for name in ("TERM", "USR1", "HUP", "QUIT"):
    signal.signal(getattr(signal, f"SIG{name}"), handle)
from issl.jobs import handover
print(handover.forked, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGQUIT])
def test_signals_reach_it(server, number):
    waiting = call(WAITS)
    assert waiting.stdout.readline() == "True\n"
    waiting.send_signal(number)
    assert waiting.communicate(timeout=60) == (f"{number.name}\n", "")
    assert waiting.returncode == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_ends_it_ends_who_waits_for_it(server, number):
    waiting = call("import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    process = psutil.Process(int(waiting.stdout.readline()))
    waiting.send_signal(number)
    waiting.communicate(timeout=60)
    assert waiting.returncode == -number
    assert not process.is_running()


def test_ctrl_z_stops_it_and_it_goes_on(server):
    waiting = call("import os; print(os.getpid(), flush=True); print(input())")
    process = psutil.Process(int(waiting.stdout.readline()))
    waiting.send_signal(signal.SIGTSTP)
    wait_for(lambda: process.status() == psutil.Process(waiting.pid).status() == psutil.STATUS_STOPPED)
    waiting.send_signal(signal.SIGCONT)
    wait_for(lambda: psutil.STATUS_STOPPED not in (process.status(), psutil.Process(waiting.pid).status()))
    assert waiting.communicate("on\n", timeout=60) == ("on\n", "")


def test_it_ends_with_who_waits_for_it(server):
    waiting = call(WAITS.replace("print(handover.forked", "import os; print(os.getpid()"))
    process = psutil.Process(int(waiting.stdout.readline()))
    assert process.ppid() == server.pid
    waiting.kill()
    wait_for(lambda: not process.is_running())
    assert is_forked()


def test_it_ends_with_the_warm_process_and_says_so(server):
    waiting = call("import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    process = psutil.Process(int(waiting.stdout.readline()))
    server.kill()
    server.wait()
    assert "error: the process that this job was forked from has died" in waiting.communicate(timeout=60)[1]
    assert waiting.returncode == 1
    wait_for(lambda: not process.is_running())
    assert not is_forked()


def test_two_at_once(server):
    jobs = [call("print(input(), input())") for _ in range(2)]
    for number, job in reversed([*enumerate(jobs)]):
        assert job.communicate(f"{number}\nx\n", timeout=60) == (f"{number} x\n", "")


def test_two_have_other_random_numbers(server):
    code = "import random; print(random.random())"
    assert outcome(code)[1] != outcome(code)[1]


STARTER = f"""
import os
from issl.jobs import handover, warm
server = warm.begin(({str(PROGRAM)!r},))
print(os.environ[handover.WARM], server.pid, flush=True)
input()
"""


def test_the_warm_process_ends_with_the_workflow_and_its_last_job(monkeypatch):
    """As the jobs of a snakemake that was killed go on, so do these."""
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    workflow = subprocess.Popen(
        [sys.executable, "-c", STARTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    name, number = workflow.stdout.readline().split()
    monkeypatch.setenv(handover.WARM, name)
    server = psutil.Process(int(number))
    working = call("from issl.jobs import handover; print(handover.forked, flush=True); print(input())")
    assert working.stdout.readline() == "True\n"
    workflow.kill()
    workflow.wait()
    wait_for(lambda: not is_forked())
    assert server.is_running()
    assert working.communicate("finished\n", timeout=60) == ("finished\n", "")
    assert working.returncode == 0
    wait_for(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)
    assert name not in Path("/proc/net/unix").read_text()


LIMIT = resource.RLIMIT_CORE


@pytest.mark.parametrize(
    "options",
    [
        {"env": {"MKL_DYNAMIC": "FALSE"}},
        {"env": {"OMP_NUM_THREADS": "1,2"}},
        {"env": {"OMP_NUM_THREADS": "2"}},
        {"env": {handover.WARM: "nobody-listens"}},
        {"preexec_fn": lambda: os.nice(1)},
        {"preexec_fn": lambda: resource.setrlimit(LIMIT, (1, resource.getrlimit(LIMIT)[1]))},
    ],
)
def test_anything_else_than_the_same_machine_session_is_done_in_the_ordinary_way(server, options):
    assert is_forked()
    assert not is_forked(**options)


def test_edited_code_is_not_forked(begin, tmp_path, monkeypatch):
    edited = tmp_path / "edited.py"
    edited.write_text("value = 1\n")
    os.utime(edited, (1, 1))
    monkeypatch.setenv("ISSL_TEST_LOADED", f"sys.path.append({str(tmp_path)!r}); import edited")
    begin()
    assert is_forked()
    edited.write_text("value = 2\n")
    assert not is_forked()


FAKE_TORCH = """
from types import SimpleNamespace
sys.modules["torch"] = SimpleNamespace(cuda=SimpleNamespace(is_initialized=lambda: {}, _is_in_bad_fork=lambda: {}))
"""


@pytest.mark.parametrize(
    ("loaded", "clean"),
    [
        ("import threading; threading.Timer(60, print).start()", False),
        (FAKE_TORCH.format(True, False), False),
        (FAKE_TORCH.format(False, True), False),
        (FAKE_TORCH.format(False, False), True),
    ],
)
def test_only_a_process_without_threads_and_cuda_is_forked(begin, monkeypatch, loaded, clean):
    monkeypatch.setenv("ISSL_TEST_LOADED", loaded)
    begin()
    assert is_forked() == clean


@pytest.mark.parametrize("command", [["plan"], ["gc"], []])
def test_only_jobs_are_handed_over(server, command):
    assert handover.hand_over(command) == "not asked for"
