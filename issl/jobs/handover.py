"""Hands a job to a process that has imported its libraries already, and ends as that job ends.

The other side is `issl.jobs.warm`. This side runs before anything else of a job, so it imports only quick parts of the
standard library.
"""

import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

WARM = "ISSL_WARM"  # environment: the abstract socket of the warm process of this workflow
SERVE = "serve-warm"  # the argument that makes `python -m issl` that process
COMMANDS = ("prepare", "pretrain", "featurize", "probe")

# What Snakemake and bash set for each job. With any other difference from the warm process's environment, a library
# might have been imported with another setting.
THREADS = (
    *("OMP_NUM_THREADS", "GOTO_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    *("MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS"),
)
NO_THREADS = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}  # of pandas' pyarrow, as it is imported
VARIES = frozenset({*THREADS, *NO_THREADS, "TMPDIR", "TMP", "TEMP", "TEMPDIR", "SHLVL", "PWD", "OLDPWD", "_"})
OURS = "ISSL_"  # these variables are read when they are needed

ACCEPTED, DECLINED = b"+", b"-"
BEGIN = 0  # sent, as is the number of a signal, once signals are passed on
NAMESPACES = ("ipc", "mnt", "net", "pid", "user", "uts")

forked = False  # whether this process is a job that a warm process forked

LENGTH, STATUS, SIGNAL = struct.Struct("!I"), struct.Struct("!I"), struct.Struct("!B")
PATIENCE = 60.0  # seconds: the warm process may still be importing on a busy machine

# Signals that people, terminals and schedulers send. Ctrl-Z has another name, because the system ignores SIGTSTP in a
# session without a terminal.
PASSED = {
    signal.SIGHUP: signal.SIGHUP,
    signal.SIGINT: signal.SIGINT,
    signal.SIGQUIT: signal.SIGQUIT,
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGUSR1: signal.SIGUSR1,
    signal.SIGUSR2: signal.SIGUSR2,
    signal.SIGTSTP: signal.SIGSTOP,
    signal.SIGCONT: signal.SIGCONT,
}


def hand_over(arguments: Sequence[str]) -> str:
    """Ends this process as the job ends, if a warm process takes it; otherwise says why none does.

    The job gets this process's standard streams, folder, environment, umask and signals. A job whose warm process dies
    is killed, and ends with status 1 here.
    """
    name = os.environ.get(WARM)
    if not name or not arguments or arguments[0] not in COMMANDS:
        return "not asked for"
    try:
        connection = _connected(name)
        reason = _declined(connection, arguments)
    except (OSError, ValueError) as error:
        return str(error)
    if not reason:
        _end_as(_followed(connection))
    connection.close()
    return reason


def surroundings(path: Sequence[str]) -> str:
    """Everything outside the environment that a process inherits and that must be the same for a job here and there.

    `path` is `sys.path` as it was when the process began.
    """
    import resource

    own = Path("/proc/self")
    limits = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    return json.dumps(
        {
            "python": [sys.executable, sys.version, list(sys.flags), list(path), sys.modules["__main__"].__file__],
            "user": [os.getresuid(), os.getresgid(), os.getgroups()],
            "limits": [resource.getrlimit(getattr(resource, name)) for name in limits],
            "priority": [os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)],
            "cores": sorted(os.sched_getaffinity(0)),
            "root": str(own.joinpath("root").readlink()),
            "namespaces": [str(own.joinpath("ns", name).readlink()) for name in NAMESPACES],
            "cgroup": own.joinpath("cgroup").read_text(encoding="utf-8"),
            "memory": own.joinpath("oom_score_adj").read_text(encoding="utf-8"),
        }
    )


def differing(environment: dict[str, str], other: dict[str, str]) -> list[str]:
    """Variables that are not the same in two environments and might matter while libraries are imported."""
    names = {name for name, _ in environment.items() ^ other.items()}
    return sorted(name for name in names - VARIES if not name.startswith(OURS))


def _connected(name: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(PATIENCE)
        connection.connect(f"\0{name}")
        if peer_user(connection) != os.getuid():
            raise ValueError("another user's")
    except BaseException:
        connection.close()
        raise
    return connection


def peer_user(connection: socket.socket) -> int:
    """The user at the other end, as the system knows it."""
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return user


def _declined(connection: socket.socket, arguments: Sequence[str]) -> str:
    """Sends the job; why it is not taken, or nothing if it is."""
    streams = [(each.encoding, each.errors, each.write_through) for each in (sys.stdin, sys.stdout, sys.stderr)]
    mask = os.umask(0)
    os.umask(mask)
    request: dict[str, Any] = {
        "arguments": list(arguments),
        "surroundings": surroundings(sys.path),
        "folder": str(Path.cwd()),
        "environment": {name: value for name, value in os.environ.items() if name != WARM},
        "umask": mask,
        "streams": streams,
        "ignored": [number for number in signal.valid_signals() if signal.getsignal(number) == signal.SIG_IGN],
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    }
    content = json.dumps(request).encode()
    socket.send_fds(connection, [LENGTH.pack(len(content))], [0, 1, 2])
    connection.sendall(content)
    answer = connection.recv(1)
    if answer == ACCEPTED:
        return ""
    return connection.recv(1000).decode(errors="replace") or "no answer"


def _followed(connection: socket.socket) -> int:
    """The wait status of the job, to which this process's signals are passed on meanwhile."""

    def pass_on(number: int, _: object) -> None:
        try:
            connection.sendall(SIGNAL.pack(PASSED[number]))
        except OSError:  # the job has just ended
            return
        if number == signal.SIGTSTP:
            os.kill(os.getpid(), signal.SIGSTOP)

    connection.settimeout(None)
    for number in PASSED:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, pass_on)
    content = b""
    try:
        connection.sendall(SIGNAL.pack(BEGIN))
        while len(content) < STATUS.size and (more := connection.recv(STATUS.size - len(content))):
            content += more
    except ConnectionError:
        pass
    if len(content) < STATUS.size:
        os.write(
            2, b"error: the process that this job was forked from has died (execution.warm); start the job again\n"
        )
        os._exit(1)
    return STATUS.unpack(content)[0]


def _end_as(status: int) -> NoReturn:
    if os.WIFSIGNALED(status):
        import resource

        number = os.WTERMSIG(status)
        resource.setrlimit(
            resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1])
        )  # the job's is enough
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.pause()
    os._exit(os.WEXITSTATUS(status))
