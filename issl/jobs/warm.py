"""A process that has imported what jobs need, and forks each job of one workflow on this machine.

Imports take most of the time of a small job. `start_warm` is called by the Snakefile, `serve` runs in the process, and
`issl.jobs.handover` in each job. The process runs one thread and never starts CUDA, so that its forks are clean.
"""

import ctypes
import gc
import io
import json
import os
import random
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, NoReturn

from issl.jobs import handover
from issl.jobs.ending import run_and_end
from issl.jobs.execution import Execution

FEWEST = 2  # jobs that are worth a process
LISTEN, LIFELINE = "ISSL_WARM_LISTEN", "ISSL_WARM_LIFELINE"  # environment of the process: numbers of open files
HELLO = 10.0  # seconds in which a job must have sent its request
PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>


def start_warm(workflow: Any, executions: Mapping[str, Execution]) -> None:
    """Starts the process in the background, if Snakemake is about to run several jobs itself that it could fork.

    `workflow` is Snakemake's; `executions` has the settings of each results folder. The process ends with this one,
    however this one ends, once the jobs that it forked have ended.
    """
    if sys.platform != "linux" or not workflow.is_main_process or workflow.executor_plugin.name != "local":
        return
    if workflow.deployment_settings.deployment_method:  # jobs have another Python, or another root folder
        return
    jobs = [job for job in workflow.dag.needrun_jobs(exclude_finished=False) if job.rule.name in handover.COMMANDS]
    roots = [executions.get(job.wildcards.get("root")) for job in jobs]
    if sum(execution is not None and execution.warm for execution in roots) < FEWEST:
        return
    begin()


def begin(program: Sequence[str] = ("-m", "issl")) -> subprocess.Popen:
    """Starts the process, and names it to the jobs of this one by the environment; `program` is theirs."""
    name = f"issl-{os.getpid()}-{token_hex(8)}"
    lifeline, _ = os.pipe()  # its other end closes with this process; jobs do not inherit it
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0{name}")  # abstract: no file, and gone with the process
        listening.listen(128)  # jobs wait here while the process imports
        files = (listening.fileno(), lifeline)
        environment = os.environ | dict.fromkeys(handover.THREADS, "1") | handover.NO_THREADS
        process = subprocess.Popen(
            [sys.executable, *program, handover.SERVE],
            stdin=subprocess.DEVNULL,
            stdout=2,
            pass_fds=files,
            start_new_session=True,  # Ctrl-C is for the jobs
            env=environment | {LISTEN: str(files[0]), LIFELINE: str(files[1])},
        )
    os.close(lifeline)
    os.environ[handover.WARM] = name
    return process


def serve(load: Callable[[], Callable[[], None]]) -> NoReturn:
    """Forks jobs until the workflow and the last of them have ended.

    `load` imports everything that jobs need, and returns what a job calls.
    """
    began, path = time.time_ns(), list(sys.path)
    server = _Server(socket.socket(fileno=int(os.environ.pop(LISTEN))), int(os.environ.pop(LIFELINE)))
    environment = dict(os.environ)
    command = load()
    imported, unclean = _versions(), _unclean()
    if any(changed >= began for changed, _ in imported.values()):
        server.stop("a file was edited while it was imported")
    gc.collect()
    gc.freeze()  # forks share these objects as long as nothing touches them
    while server.goes_on():
        for connection, request in server.requests():
            if reason := _unlike(request, environment, path) or unclean or _edited(imported):
                server.decline(connection, reason)
            elif server.fork(connection):
                _become(request)
                run_and_end(command)
    os._exit(0)  # nothing was begun that needs an end


# --- whether a job may be forked --------------------------------------------------------------------------------------


def _unlike(request: Mapping[str, Any], environment: dict[str, str], path: list[str]) -> str:
    """Why this process might have imported something else than the job would have; empty if it has not."""
    if names := handover.differing(request["environment"], environment):
        return f"other environment: {', '.join(names)}"
    if request["surroundings"] != handover.surroundings(path):
        return "other surroundings"
    if not _threads(request):
        return "unknown number of threads"
    return ""


def _threads(request: Mapping[str, Any]) -> int:
    """The number of threads that Snakemake gave the job; 0 if that is not clear."""
    values = {request["environment"].get(name) for name in handover.THREADS}
    value = values.pop()
    return int(value) if not values and value is not None and value.isdecimal() else 0


def _unclean() -> str:
    """Why a fork would not be like a new process; empty if it would."""
    if len([*Path("/proc/self/task").iterdir()]) > 1:
        return "threads"
    return "CUDA has been started" if _started_cuda() else ""


def _started_cuda() -> bool:
    """Whether CUDA was touched in this process, after which it does not work in forks: as torch sees it in a fork."""
    if not (torch := sys.modules.get("torch")):
        return False
    fork = os.fork()
    if fork == 0:
        os._exit(bool(torch.cuda.is_initialized() or torch.cuda._is_in_bad_fork()))
    return os.waitpid(fork, 0)[1] != 0


Versions = dict[str, tuple[int, int]]  # of each imported file, when it was changed and its size


def _versions() -> Versions:
    files = {getattr(module, "__file__", None) for module in [*sys.modules.values()]}
    return {file: _version(file) for file in files if file}


def _version(file: str) -> tuple[int, int]:
    try:
        about = Path(file).stat()
    except OSError:  # such as a module in an archive
        return 0, 0
    return about.st_mtime_ns, about.st_size


def _edited(imported: Versions) -> str:
    """Which imported file is no longer what it was; empty if all are."""
    return next((f"{file} was edited" for file, version in imported.items() if _version(file) != version), "")


# --- the process ------------------------------------------------------------------------------------------------------


class _Server:
    """The jobs that run, and the connections to the processes that wait for them."""

    def __init__(self, listening: socket.socket, lifeline: int):
        self.listening, self.lifeline = listening, lifeline
        self.jobs: dict[int, socket.socket | None] = {}  # process -> connection, None once nobody waits
        self.refusal = ""  # why no more jobs are taken
        self.selector = selectors.DefaultSelector()
        self.woken, self.wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self.wake, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, frame: self.stop("told to end"))
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # only wakes
        for source in (listening, lifeline, self.woken):
            self.selector.register(source, selectors.EVENT_READ)

    def stop(self, reason: str) -> None:
        """Takes no more jobs."""
        self.refusal = reason

    def goes_on(self) -> bool:
        return bool(self.jobs) or not self.refusal

    def requests(self) -> Iterator[tuple[socket.socket, dict[str, Any]]]:
        """Waits until something happens, and yields the jobs that are asked for."""
        for key, _ in self.selector.select():
            source = key.fileobj
            if source == self.woken:
                with suppress(BlockingIOError):
                    os.read(self.woken, 4096)
                self._reap()
            elif source == self.lifeline:
                self.selector.unregister(self.lifeline)
                self.stop("the workflow has ended")
            elif source is not self.listening:
                self._pass_on(source)
            elif self.refusal:
                self.decline(self.listening.accept()[0], self.refusal)
            else:
                yield from self._accept()

    def _accept(self) -> Iterator[tuple[socket.socket, dict[str, Any]]]:
        connection, _ = self.listening.accept()
        try:
            connection.settimeout(HELLO)
            if handover.peer_user(connection) != os.getuid():
                raise ValueError("another user's")
            request = _read(connection)
        except (OSError, ValueError, KeyError, struct.error) as error:
            self.decline(connection, str(error))
            return
        yield connection, request
        for file in request["files"]:  # the job has its own now
            os.close(file)

    def decline(self, connection: socket.socket, reason: str) -> None:
        with suppress(OSError), connection:
            connection.sendall(handover.DECLINED + reason.encode(errors="replace"))

    def fork(self, connection: socket.socket) -> bool:
        """Forks; True in the job, with every signal blocked and the files of the process closed."""
        try:
            received = _until_begin(connection)
        except OSError:  # nobody waits any more
            connection.close()
            return False
        parent = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        process = os.fork()
        if process == 0:
            self._leave(parent)
            connection.close()
            return True
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
        self.jobs[process] = connection
        self.selector.register(connection, selectors.EVENT_READ, process)
        for number in received:
            os.kill(process, number)
        return False

    def _leave(self, parent: int) -> None:
        signal.set_wakeup_fd(-1)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        self.selector.close()
        for connection in filter(None, self.jobs.values()):
            connection.close()
        self.listening.close()
        for file in (self.lifeline, self.woken, self.wake):
            os.close(file)

    def _pass_on(self, connection: socket.socket) -> None:
        """Sends a job the signals that the process waiting for it got; kills it if that process has ended."""
        process = self.selector.get_key(connection).data
        try:
            numbers = connection.recv(64)
        except BlockingIOError:
            return
        except OSError:
            numbers = b""
        for number in numbers:
            os.kill(process, number)  # not reaped yet, so it is this process
        if not numbers:
            self._abandon(process)

    def _abandon(self, process: int) -> None:
        connection = self.jobs[process]
        self.jobs[process] = None
        self.selector.unregister(connection)
        connection.close()
        os.kill(process, signal.SIGKILL)

    def _reap(self) -> None:
        while self.jobs:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                return
            connection = self.jobs.pop(process)
            if connection:
                self.selector.unregister(connection)
                with suppress(OSError), connection:
                    connection.sendall(handover.STATUS.pack(status))


def _read(connection: socket.socket) -> dict[str, Any]:
    """The job that is asked for, with its standard streams. Raises ValueError if the other end has gone."""
    head, files, _, _ = socket.recv_fds(connection, handover.LENGTH.size, 3)
    try:
        (length,) = handover.LENGTH.unpack(head)
        content = bytearray()
        while len(content) < length:
            if not (more := connection.recv(min(length - len(content), 1 << 20))):
                raise ValueError("no complete request")
            content += more
        if len(files) != 3:
            raise ValueError("no standard streams")
        connection.setblocking(False)
        with suppress(BlockingIOError):
            if not connection.recv(1, socket.MSG_PEEK):
                raise ValueError("nobody waits any more")
        return json.loads(content) | {"files": files}
    except BaseException:
        for file in files:
            os.close(file)
        raise


def _until_begin(connection: socket.socket) -> list[int]:
    """Accepts a job, and waits until the other end passes signals on; those that came meanwhile."""
    connection.settimeout(HELLO)
    connection.sendall(handover.ACCEPTED)
    received: list[int] = []
    while True:
        if not (content := connection.recv(1)):
            raise ConnectionResetError
        if content[0] == handover.BEGIN:
            connection.setblocking(False)
            return received
        received.append(content[0])


# --- the job ----------------------------------------------------------------------------------------------------------


def _become(request: Mapping[str, Any]) -> None:
    """Makes this fork what a process started for the job would be."""
    os.setsid()
    for number, file in enumerate(request["files"]):
        os.dup2(file, number)
        os.close(file)
    for number, (name, how) in enumerate(zip(("stdin", "stdout", "stderr"), request["streams"])):
        stream = _stream(number, *how)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    os.umask(request["umask"])
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[1:] = request["arguments"]
    tempfile.tempdir = None  # may differ from job to job
    random.seed()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    if (threads := _threads(request)) > 1:
        _use_threads(threads)
    handover.forked = True
    _default_signals(request["ignored"])
    signal.pthread_sigmask(signal.SIG_SETMASK, request["blocked"])


def _stream(number: int, encoding: str, errors: str, unbuffered: bool) -> io.TextIOWrapper:
    """A standard stream as Python opens it."""
    binary = open(number, "wb" if number else "rb", buffering=0 if unbuffered else -1, closefd=False)  # noqa: SIM115
    by_line = not unbuffered and (number == 2 or os.isatty(number))
    newline = "\n" if number else None
    return io.TextIOWrapper(binary, encoding, errors, newline, line_buffering=by_line, write_through=unbuffered)


def _use_threads(number: int) -> None:
    """Lets libraries use threads; they read their environment when they were imported."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(number)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(number)


def _default_signals(ignored: Sequence[int]) -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        before = signal.SIG_IGN if number in ignored else signal.SIG_DFL
        if number == signal.SIGINT and number not in ignored:
            before = signal.default_int_handler
        if signal.getsignal(number) != before:
            signal.signal(number, before)
