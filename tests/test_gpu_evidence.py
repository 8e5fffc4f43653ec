"""The evidence of a GPU, without one: its parts with made-up measurements, and small rehearsals."""

import importlib
import json
import re
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from project import PROJECT

from benchmarks import gpu_evidence
from benchmarks.gpu import checks, evidence, profile, rows, session, speed
from benchmarks.gpu.session import Budget, Piece, Session
from issl.errors import UserError
from issl.jobs import allocation
from issl.spec.run import run_id

CPU = torch.device("cpu")


@pytest.fixture
def gather(monkeypatch, tmp_path, capsys, logging_as_before):
    """Runs the command with made-up parts, name -> pieces, of which each is name -> lines or an error.

    Gives its error, what was measured, and the folder.
    """
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # for the refusal; nothing here computes
    monkeypatch.setattr(evidence.measure, "machine", lambda: MACHINE)

    def call(*arguments, in_time=False, **parts):
        done = []

        def pieces(name):
            def measure(piece, content):
                done.append(f"{name}: {piece}")
                if isinstance(content, Exception):
                    raise content
                return content() if callable(content) else content

            return lambda session: [
                Piece(piece, 1, lambda piece=piece, content=content: measure(piece, content))
                for piece, content in parts[name].items()
            ]

        for name in parts:
            monkeypatch.setitem(sys.modules, f"benchmarks.gpu.{name}", SimpleNamespace(pieces=pieces(name)))
        made_up = {name: gpu_evidence.Part(f"The claim of {name}.", name, in_time=in_time) for name in parts}
        monkeypatch.setattr(gpu_evidence, "PARTS", made_up)
        out = tmp_path / "gpu"
        monkeypatch.setattr(sys, "argv", ["gpu_evidence", "--out", str(out), *arguments])
        error = None
        try:
            gpu_evidence.main()
        except SystemExit as stopped:
            error = stopped.code
        return SimpleNamespace(error=error, done=done, folder=out, **capsys.readouterr()._asdict())

    return call


MACHINE = {"cpu": "a CPU", "cores": 16, "memory_gib": 128.0, "gpus": ["NVIDIA H100 80GB HBM3"]}
LINE = [{"method": "cissl", "images_per_second": 12_345.6, "n": 5}]


def result(out, part):
    return json.loads((out / f"{part}.json").read_text())


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_parts_are_measured_in_order_and_each_once(gather):
    parts = {"first": {"a": LINE, "b": LINE}, "second": {"c": LINE}}
    found = gather(**parts)
    assert found.error is None
    assert found.done == ["first: a", "first: b", "second: c"]
    assert result(found.folder, "first")["finished"] and result(found.folder, "second")["finished"]
    assert sorted(path.name for path in found.folder.glob("[!.]*")) == ["evidence.md", "first.json", "second.json"]
    again = gather(**parts)
    assert again.done == [] and "first: finished before" in again.err
    (found.folder / "first.json").unlink()
    assert gather(**parts).done == ["first: a", "first: b"]


def test_one_part_alone(gather):
    parts = {"first": {"a": LINE}, "second": {"b": LINE}}
    assert gather("second", **parts).done == ["second: b"]
    assert gather("secnod", **parts).error == "error: unknown part 'secnod', did you mean 'second'?"


def test_a_part_that_its_time_cuts_goes_on_with_the_pieces_that_it_lacks(gather):
    def slow():
        time.sleep(0.2)
        return LINE

    parts = {"only": {"a": slow, "b": LINE, "c": LINE}}
    cut = gather("--minutes", "0.002", **parts)
    assert cut.error is None and cut.done == ["only: a"]
    assert "only: the time is over" in cut.err and not result(cut.folder, "only")["finished"]
    assert "- not finished" in (cut.folder / "evidence.md").read_text()
    more = gather(**parts)
    assert more.done == ["only: b", "only: c"]
    content = result(more.folder, "only")
    assert content["finished"] and list(content["pieces"]) == ["a", "b", "c"]
    assert [call["pieces"] for call in content["calls"]] == [["a"], ["b", "c"]]


def test_a_part_in_time_is_finished_when_its_time_is_over(gather):
    parts = {"only": {"a": lambda: time.sleep(0.2) or LINE, "b": LINE}}
    found = gather("--minutes", "0.002", in_time=True, **parts)
    assert found.done == ["only: a"] and result(found.folder, "only")["finished"]
    assert gather(in_time=True, **parts).done == []


@pytest.mark.parametrize("in_time", [False, True])
def test_a_piece_that_fails_is_shown_and_tried_again_after_the_others_had_their_turn(gather, in_time):
    found = gather(only={"a": ValueError("out of luck"), "b": LINE}, in_time=in_time)
    assert "only: a" in found.error and "only: b" not in found.error
    assert "ValueError: out of luck" in found.err
    assert found.done == ["only: a", "only: b"] and not result(found.folder, "only")["finished"]
    again = gather(only={"a": LINE, "b": LINE}, in_time=in_time)
    assert again.error is None and again.done == ["only: a"]


def test_a_training_that_a_signal_stops_ends_the_command(gather):
    stopped = allocation.Stopped("stopped after step 7 (SIGTERM) and saved", walltime_over=False)
    found = gather(first={"a": LINE, "b": stopped, "c": LINE}, second={"d": LINE})
    assert found.error == "error: stopped after step 7 (SIGTERM) and saved"
    assert found.done == ["first: a", "first: b"]
    assert list(result(found.folder, "first")["pieces"]) == ["a"]


def test_without_a_gpu_it_refuses_in_one_line_unless_it_is_a_rehearsal(gather, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = gather(only={"a": LINE})
    assert re.fullmatch(r"error: no CUDA device here.*--limit 2", found.error) and not found.done
    assert not found.folder.exists()
    rehearsed = gather("--limit", "2", only={"a": LINE})
    assert rehearsed.error is None and result(rehearsed.folder, "only")["limit"] == 2
    assert "the numbers mean nothing" in (rehearsed.folder / "evidence.md").read_text()


def test_a_rehearsal_and_a_measurement_are_never_mixed(gather):
    gather("--limit", "2", only={"a": LINE})
    found = gather(only={"a": LINE})
    assert "only.json: was measured with --limit 2" in found.error and not found.done


@pytest.mark.parametrize("text", ["not JSON", "[]", "1", '{"part": "another"}', '{"part": "only"}'])
def test_a_foreign_file_is_not_overwritten(gather, tmp_path, text):
    foreign = tmp_path / "gpu" / "only.json"
    foreign.parent.mkdir()
    foreign.write_text(text)
    found = gather(only={"a": LINE})
    assert "only.json: not the results of the part 'only'" in found.error
    assert foreign.read_text() == text


def test_every_part_has_its_function():
    assert list(gpu_evidence.PARTS) == ["checks", "bench", "speed", "profile", "probes", "rows_1", "rows_2", "rows_3"]
    for part in gpu_evidence.PARTS.values():
        assert callable(getattr(importlib.import_module(f"benchmarks.gpu.{part.module}"), part.pieces))


# --- the table -------------------------------------------------------------------------------------------------------


def call(pieces, card="NVIDIA H100 80GB HBM3", **changes):
    about = {
        "machine": MACHINE | {"gpus": [card]},
        "versions": {"python": "3.12.3", "torch": "2.11.0"},
        "git": {"commit": "0123456789abcdef", "dirty": False},
        "code": "89abcdef",
        "command": "python -m benchmarks.gpu_evidence",
        "time": "2030-01-01T00:00:00+00:00",
        "pieces": pieces,
    }
    return about | changes


def test_the_table_names_claim_card_versions_and_n():
    lines = {
        "a": [{"run": "cissl", "images_per_second": 12_345.6, "error": 0.01234, "n": 5, "passed": True, "empty": None}],
        "b": [{"run": "di|ssl", "images_per_second": None, "error": 3.0, "n": 3, "passed": False, "empty": None}],
        "c": [{"what": "another table", "kernels": {"gemm": 1.5}, "n": 1}],
    }
    content = {"part": "speed", "limit": None, "finished": True, "calls": [call(["a", "b", "c"])], "pieces": lines}
    text = evidence.table([content], {"speed": "Each run takes so long."})
    assert text.splitlines() == [
        "# Measured on a GPU",
        "",
        "## speed",
        "",
        "**Each run takes so long.**",
        "",
        "- n = 1 to 5",
        "- a CPU, 16 cores, 128.0 GiB, NVIDIA H100 80GB HBM3; python 3.12.3, torch 2.11.0; commit 0123456789ab; "
        "2030-01-01T00:00:00+00:00; `python -m benchmarks.gpu_evidence`",
        "",
        "| run | images per second | error | n | passed |",
        "| --- | --- | --- | --- | --- |",
        "| cissl | 12,346 | 0.0123 | 5 | yes |",
        "| di\\|ssl |  | 3 | 3 | **no** |",
        "",
        "| what | n |",
        "| --- | --- |",
        "| another table | 1 |",
    ]


def test_the_table_tells_what_was_measured_on_which_card():
    calls = [call(["a"]), call(["b"], "NVIDIA H200", git=None), call([], git={"commit": "f" * 40, "dirty": True})]
    content = {"part": "speed", "limit": None, "finished": True, "calls": calls, "pieces": {"a": LINE, "b": LINE}}
    text = evidence.table([content], {"speed": ""})
    assert re.search(r"- a: a CPU.*NVIDIA H100.*commit 0123456789ab;", text)
    assert re.search(r"- b: a CPU.*NVIDIA H200.*; code 89abcdef;", text)
    assert "commit ffffffffffff, edited" in text
    assert "- n = 5\n" in text


# --- checks ----------------------------------------------------------------------------------------------------------


def test_every_test_that_skips_without_a_gpu_is_listed():
    mark = r"@pytest\.mark\.skipif\(not torch\.cuda\.is_available\(\).*\)\n(?:@.*\n)*def (\w+)"
    tests = [
        f"{path.relative_to(PROJECT)}::{name}"
        for path in sorted((PROJECT / "tests").rglob("test_*.py"))
        for name in re.findall(mark, path.read_text())
    ]
    assert tests == list(checks.GPU_TESTS)


def test_a_step_in_fp16_is_taken_at_a_scale_that_does_not_overflow(make_run, monkeypatch):
    """Its clipping hides an overflow, after which the optimiser takes no step."""
    run = make_run()
    views = checks.views_of(run, CPU)
    loss, gradient, loss_after, scale = checks.step(run, views, CPU, "32")
    assert scale is None and loss_after < loss - 0.1
    monkeypatch.setattr(checks, "LARGEST_SCALE", 30)
    half_loss, half_gradient, half_loss_after, scale = checks.step(run, views, CPU, "fp16")
    assert scale < 30
    assert half_loss == pytest.approx(loss, rel=0.01)
    assert half_loss_after == pytest.approx(loss_after, abs=(loss - loss_after) / 4)
    assert (half_gradient - gradient).norm() < 0.3 * gradient.norm()


# --- profile ---------------------------------------------------------------------------------------------------------


def event(name, cat, ts, dur, tid=1, **args):
    return {"ph": "X", "name": name, "cat": cat, "ts": ts, "dur": dur, "tid": tid, "args": args}


TRACE = [
    {"ph": "M", "name": "process_name", "args": {}},  # has neither time nor category
    event(profile.WINDOW, "user_annotation", 1000, 100),
    event(profile.WINDOW, "gpu_user_annotation", 1000, 100, tid=7),
    event(profile.AUGMENTATION, "user_annotation", 1010, 20),
    event("cudaLaunchKernel", "cuda_runtime", 1012, 2, correlation=1),
    event("cudaMemcpyAsync", "cuda_runtime", 1015, 2, correlation=2),
    event("cudaLaunchKernel", "cuda_runtime", 1020, 2, tid=2, correlation=3),  # of the backward pass, meanwhile
    event("cuLaunchKernel", "cuda_driver", 1040, 2, correlation=4),
    event("cudaDeviceSynchronize", "cuda_runtime", 1080, 15),
    event("crop", "kernel", 1020, 10, tid=7, correlation=1),
    event("copy", "gpu_memcpy", 1025, 10, tid=8, correlation=2),  # half of it beside the kernel
    event("gemm", "kernel", 1050, 20, tid=7, correlation=3),
    event("conv", "kernel", 1090, 30, tid=7, correlation=4),  # ends after the window
]


def test_the_shares_of_a_trace():
    assert profile.shares(TRACE) == {
        "profiled": 100,
        "host": 100 - 15,
        "device_busy": 15 + 20 + 10,
        "augmentation_on_host": 20,
        "augmentation_on_device": 15,
    }
    assert profile.kernels(TRACE, steps=2) == {"conv": 0.015, "gemm": 0.01, "crop": 0.005, "copy": 0.005}


# --- speed and rows --------------------------------------------------------------------------------------------------


def test_every_run_of_the_paper_is_measured_once(monkeypatch):
    paper = Session(Path("nowhere"), Budget(1))
    monkeypatch.setattr(speed, "lines", lambda session, runs, images: runs)
    monkeypatch.setattr(speed, "noise", lambda *_: None)
    measured = [piece.measure() for piece in speed.pieces(paper)]
    assert len(paper.runs) > len(measured) > 15  # some runs differ only in their epochs
    assert sorted(run_id(run) for runs in measured for run in runs) == sorted(map(run_id, paper.runs))
    for first, *others in measured:
        assert all(run.encoder == first.encoder and run.objective == first.objective for run in others)


def test_a_training_is_asked_to_stop_once_it_listens():
    before = signal.getsignal(signal.SIGUSR1)
    asked = []
    with rows.stopped_after(0.05):
        time.sleep(0.2)  # not yet listening: the signal would end the process
        listening = signal.signal(signal.SIGUSR1, lambda *_: asked.append(time.monotonic()))
        end = time.monotonic() + 10
        while not asked and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(1.2)
        signal.signal(signal.SIGUSR1, listening)
    assert len(asked) == 1
    assert signal.getsignal(signal.SIGUSR1) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_without_the_archive_no_row_begins(tmp_path):
    paper = Session(tmp_path, Budget(1), archive=tmp_path / "nowhere.zip")
    with pytest.raises(UserError, match=r"nowhere\.zip: no such file"):
        next(rows.pieces(paper))
    assert not list(tmp_path.rglob("*.npy"))


def test_the_rows_with_the_fewest_epochs_come_first(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "prepare", lambda place: None)
    paper = Session(tmp_path, Budget(1))
    names = [piece.name for piece in rows.pieces(paper)]
    epochs = [paper.rows[name].run.optim.epochs for name in names]
    assert sorted(names) == sorted(paper.rows) and epochs == sorted(epochs)
    assert names[0] == "table1_contrastive: SimCLR"


@pytest.mark.slow
def test_a_rehearsal_of_speed(tmp_path):
    rehearsal = Session(tmp_path, Budget(5), limit=1)
    (first, *_), others = (piece.measure() for piece in list(speed.pieces(rehearsal))[1:3])
    assert first["n"] == 1 and first["images_per_second"] > 0 and first["tflop_per_second"] > 0
    data = rehearsal.runs[0].data
    images = data.classes * data.train_per_class
    for line in (first, *others):
        expected = line["epochs"] * images / line["images_per_second"] / 3600
        assert line["gpu_hours"] == pytest.approx(expected)


@pytest.mark.slow
def test_a_row_that_the_time_cuts_goes_on_in_the_next_part(tmp_path, monkeypatch):
    """It is cut after its first steps; then come the rest and its probes; then nothing is left to do."""
    name, row = next(iter(Session(tmp_path, Budget(1), limit=7).rows.items()))
    monkeypatch.setattr(session, "pretrained", lambda preset: {name: row})
    (piece,) = rows.pieces(Session(tmp_path, Budget(1e-4), limit=7))
    (cut,) = piece.measure()
    assert cut["epochs_done"] < cut["epochs"] and cut["test_selected"] is None
    later = Session(tmp_path, Budget(5), limit=7)
    (piece,) = rows.pieces(later)
    (done,) = piece.measure()
    assert done["epochs_done"] == done["epochs"] and 0 < done["val_selected"] <= done["test_selected"] < 100
    kept = tmp_path / "rows" / f"{done['run']}-s1"
    assert {"history.csv", "run.json"} < {path.name for path in kept.iterdir()}
    assert len((kept / "history.csv").read_text().splitlines()) == 1 + done["epochs"]
    assert len(json.loads((kept / "run.json").read_text())["attempts"]) == 2
    work = tmp_path / "work"
    assert not list(work.rglob("*.ckpt")) and not list(work.rglob("features/*/"))
    assert list(rows.pieces(later)) == []
