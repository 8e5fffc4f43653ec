"""A process that leaves its modules to the system ends as Python would end it."""

import subprocess
import sys

import pytest

BEGIN = "import atexit, os, signal, sys, threading, time\nfrom issl.jobs.ending import run_and_end\n"
COMMANDS = {
    "nothing": "pass",
    "a status": "sys.exit(3)",
    "a status above a byte": "sys.exit(256 + 7)",
    "a line": "sys.exit('error: it says why')",
    "an exception": "raise ValueError('no such thing')",
    "an interruption": "signal.raise_signal(signal.SIGINT)",
    "an exit function": "atexit.register(print, 'at the end')",
    "a thread": "threading.Thread(target=lambda: (time.sleep(0.2), print('from a thread'))).start()",
    "unflushed words": "sys.stdout.write('no newline')",
}


def ended(code, **options):
    return subprocess.run([sys.executable, "-c", BEGIN + code], capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_status_and_words_are_pythons(command):
    ours = ended(f"def command():\n    signal.signal(2, signal.default_int_handler); {command}\nrun_and_end(command)")
    pythons = ended(f"signal.signal(2, signal.default_int_handler); {command}")
    assert (ours.returncode, ours.stdout) == (pythons.returncode, pythons.stdout)
    assert ours.stderr.splitlines()[-1:] == pythons.stderr.splitlines()[-1:]


def test_output_that_cannot_be_written_is_no_success():
    code = "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)\n"
    ours = ended(code + "run_and_end(lambda: print('lost'))")
    assert ours.returncode == ended(code + "print('lost')").returncode != 0
