"""The command line: what it answers, and one clear line for every mistake."""

import errno
import json
import logging
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from project import PROJECT, copy_config

from issl import cli
from issl.config.schema import Config
from issl.spec.encoding import Encoding
from issl.spec.probe import ProbeGrid
from issl.spec.run import RunSpec, file_notes, run_id

CPU = json.dumps({"device": "cpu", "progress": False})
SYNTHETIC = {"kind": "synthetic", "classes": 4, "train_per_class": 16, "test_per_class": 8, "image_size": 16}
ENCODING = Encoding.model_validate({"data": SYNTHETIC, "resize": 16, "crop": 16}).canonical()
PROBES = '{"probes": [{"kind": "linear"}]}'
STAYS = re.compile(r"\.lock$|\.\d{8}-\d{6}-\d+\.log$")


class Answer(NamedTuple):
    status: int
    out: str
    err: str


def command(*arguments: object, options: tuple[str, ...] = ()) -> Answer:
    """What `python -m issl ...` does as a process of its own."""
    line = [sys.executable, *options, "-m", "issl", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=PROJECT)
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def call(monkeypatch, capsys, logging_as_before):
    """The same in this process, where starting one would only cost time."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])  # the command sets up its own
    monkeypatch.chdir(PROJECT)

    def run(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["issl", *map(str, arguments)])
        capsys.readouterr()
        ending = None
        try:
            cli.main()
        except SystemExit as error:
            ending = error.code
        out, err = capsys.readouterr()
        if isinstance(ending, str):  # what Python itself does with it
            return Answer(1, out, f"{err}{ending}\n")
        return Answer(ending or 0, out, err)

    yield run
    for handler in root.handlers:
        handler.close()


def files_in(folder: Path) -> dict[Path, bytes]:
    """All files but those that stay on purpose: locks, and the logs of attempts that failed."""
    found = (path for path in folder.rglob("*") if path.is_file() and not STAYS.search(path.name))
    return {path: path.read_bytes() for path in found}


@pytest.fixture
def refused(call, tmp_path):
    """Calls a command that must fail as a command fails: says so once, in the log too, and leaves nothing behind."""

    def run(*arguments: object) -> str:
        log = tmp_path / "job.log"
        before = files_in(tmp_path)
        answer = call(*arguments, "--log", log)
        check_refusal(answer, log.read_text())
        log.unlink()
        assert files_in(tmp_path) == before
        return answer.err

    return run


def check_refusal(answer: Answer, log: str | None = None) -> None:
    assert answer.status == 1
    assert answer.err.startswith("error: ") and answer.err.count("\n") == 1 and answer.err.endswith("\n")
    assert answer.out == ""
    if log is not None:
        assert "Traceback" not in log
        assert [line for line in log.splitlines() if line.endswith(answer.err.strip())], "not in the log file"


# --- a mistake is one line ---


def test_a_mistake_ends_the_process_with_one_line_and_status_1(tmp_path):
    log = tmp_path / "logs/job.log"
    answer = command("prepare", "--spec", '{"kind": "synthetic", "clases": 4}', "--out", tmp_path / "a", "--log", log)
    check_refusal(answer, log.read_text())
    assert answer.err == "error: --spec: data.clases: unknown key, did you mean 'classes'?\n"
    assert set(files_in(tmp_path)) == {log}


def test_a_mistake_in_a_run_ends_the_process_with_one_line_and_status_1(make_run, tmp_path):
    spec = json.loads(make_run().canonical())
    spec["optim"]["epocs"] = 3
    answer = command(
        *("pretrain", "--spec", json.dumps(spec), "--seed", 1, "--data", tmp_path, "--out", tmp_path / "a")
    )
    check_refusal(answer)
    assert answer.err == "error: --spec: optim.epocs: unknown key, did you mean 'epochs'?\n"
    assert not files_in(tmp_path)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ('{"kind": "synthetic", "imagesize": 32}', "imagesize: unknown key, did you mean 'image_size'?"),
        ('{"kind": "synthetik"}', "unknown kind 'synthetik', did you mean 'synthetic'?"),
        ('{"kind": "synthetic", "classes": "many"}', "classes: must be a whole number"),
        ('{"kind": "synthetic", "classes": 1}', "classes: must be greater than or equal to 2, not 1"),
        ("{}", "--spec: data"),
        ('{"kind":', "not valid JSON"),
        ("", "not valid JSON"),
        ('["kind", "synthetic"]', "--spec"),
        ('"synthetic"', "--spec"),
        ("null", "--spec"),
    ],
)
def test_a_wrong_data_set_is_refused(refused, tmp_path, spec, says):
    assert says in refused("prepare", "--spec", spec, "--out", tmp_path / "data")


@pytest.mark.parametrize("place", ['["data"]', "1", '{"archve": "a.zip"}', "{"])
def test_a_wrong_data_path_is_refused(refused, tmp_path, place):
    refused("prepare", "--spec", '{"kind": "tinyimagenet"}', "--place", place, "--out", tmp_path / "data")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"objectiv": {}}, "objectiv: unknown key, did you mean 'objective'?"),
        ({"objective": {"name": "simclr", "temprature": 1}}, "temprature: unknown key, did you mean 'temperature'?"),
        ({"objective": {"name": "simcrl"}}, "unknown name 'simcrl', did you mean 'simclr'?"),
        ({"optim": {"epochs": 1.5}}, "optim.epochs: must be a whole number"),
        ({"optim": {"epochs": 5, "warmup_epochs": 5}}, "optim: epochs 5 must exceed warmup_epochs 5"),
        ({"data": None}, "data"),
    ],
)
def test_a_wrong_run_is_refused(refused, make_run, tmp_path, change, says):
    spec = json.dumps(json.loads(make_run().canonical()) | change)
    where = ("--data", tmp_path / "data", "--out", tmp_path / "run")
    assert says in refused("pretrain", "--spec", spec, "--seed", 1, *where, "--settings", CPU)


@pytest.mark.parametrize("spec", ["", "{", "[]", "1", "{}"])
def test_a_malformed_run_is_refused(refused, tmp_path, spec):
    where = ("--data", tmp_path / "data", "--out", tmp_path / "run")
    refused("pretrain", "--spec", spec, "--seed", 1, *where, "--settings", CPU)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ('{"devise": "cpu"}', "--settings: devise: unknown key, did you mean 'device'?"),
        ('{"device": "tpu"}', "--settings: device: must be 'gpu', 'cpu' or 'auto', not 'tpu'"),
        ('{"wandb": {"mod": "offline"}}', "--settings: wandb.mod: unknown key, did you mean 'mode'?"),
    ],
)
def test_wrong_settings_are_refused(refused, tmp_path, settings, says):
    out = ("--out", tmp_path / "data")
    assert says in refused("prepare", "--spec", json.dumps(SYNTHETIC), *out, "--settings", settings)


@pytest.mark.parametrize(
    ("probes", "says"),
    [
        (
            '{"probes": [{"kind": "linear", "weight_decya": 0}]}',
            "--probes: probes.0.weight_decya: unknown key, did you mean 'weight_decay'?",
        ),
        ('{"probes": [{"kind": "lineer"}]}', "probes.0: unknown kind 'lineer', did you mean 'linear'?"),
        ('{"probes": [{"kind": "linear"}, {"kind": "svm"}]}', "all probes of a grid must be of one kind"),
        ('{"probes": []}', "--probes: probes: must have 1 or more entries"),
        ('{"probes": ', "--probes: not valid JSON"),
    ],
)
def test_a_wrong_probe_is_refused(refused, tmp_path, probes, says):
    where = ("--features", tmp_path / "z", "--data", tmp_path, "--out", tmp_path / "scores.csv", "--settings", CPU)
    what = ("--encoder", tmp_path, "--spec", ENCODING, "--probes", probes, "--seed", 1)
    assert says in refused("probe", *what, *where)


@pytest.mark.parametrize("stage", ["featurize", "probe"])
@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"resise": 16}, "--spec: resise: unknown key, did you mean 'resize'?"),
        ({"crop": 64}, "crop 64 exceeds the shorter side, resize 16"),
        ({"layer": "trunc"}, "--spec: layer: must be 'output' or 'trunk', not 'trunc'"),
        ({"data": SYNTHETIC | {"clases": 4}}, "--spec: data.clases: unknown key, did you mean 'classes'?"),
        ({"data": None}, "--spec: data"),
        (None, "--spec: must be a JSON object, not null"),
    ],
)
def test_a_wrong_encoding_is_refused(refused, tmp_path, stage, spec, says):
    what = ("--encoder", tmp_path, "--spec", json.dumps(spec and json.loads(ENCODING) | spec))
    if stage == "probe":
        what = (*what, "--probes", PROBES, "--seed", 1, "--features", tmp_path / "z")
    assert says in refused(stage, *what, "--data", tmp_path, "--out", tmp_path / "made", "--settings", CPU)


@pytest.mark.parametrize("place", ['["data"]', "1", '{"path": "a"}', "{"])
def test_a_wrong_path_of_encoded_data_is_refused(refused, tmp_path, place):
    what = ("--encoder", tmp_path, "--spec", ENCODING, "--place", place)  # synthetic images have no path
    refused("featurize", *what, "--data", tmp_path, "--out", tmp_path / "made", "--settings", CPU)


def test_a_misspelt_command_or_option_is_refused(call):
    for arguments in (["shw"], ["plan", "--confg", "config.yaml"], ["show"], ["prepare", "--threads", "0"]):
        check_refusal(call(*arguments))


# --- what lies on the disk ---


def test_a_missing_archive_is_named(refused, tmp_path):
    place = json.dumps({"archive": str(tmp_path / "nowhere.zip")})
    line = refused("prepare", "--spec", '{"kind": "tinyimagenet"}', "--place", place, "--out", tmp_path / "data")
    assert f"{tmp_path}/nowhere.zip: no such file" in line


def test_a_truncated_archive_is_named(refused, tmp_path):
    archive = tmp_path / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(archive, "w") as whole:
        whole.writestr("tiny-imagenet-200/wnids.txt", "n01\nn02\n" * 100)
    archive.write_bytes(archive.read_bytes()[:-40])
    place = json.dumps({"archive": str(archive)})
    line = refused("prepare", "--spec", '{"kind": "tinyimagenet"}', "--place", place, "--out", tmp_path / "data")
    assert f"{archive}: not a complete zip file" in line


def test_a_folder_that_cannot_be_written_is_named(refused, synthetic, make_run, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    below = tmp_path / "file/below"
    assert f"{below}: " in refused("prepare", "--spec", json.dumps(SYNTHETIC), "--out", below)
    what = ("--encoder", save_encoder(make_run(), tmp_path), "--spec", ENCODING)
    assert f"{below}: " in refused("featurize", *what, "--data", synthetic, "--out", below / "z", "--settings", CPU)


def test_a_log_file_that_cannot_be_written_is_named(call, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    log, out = tmp_path / "file/job.log", tmp_path / "data"
    answer = call("prepare", "--spec", json.dumps(SYNTHETIC), "--out", out, "--log", log)
    check_refusal(answer)
    assert str(tmp_path / "file") in answer.err
    assert not out.exists()


def test_a_data_set_that_is_not_prepared_is_named(refused, make_run, tmp_path):
    where = ("--data", tmp_path / "nowhere", "--out", tmp_path / "run", "--settings", CPU)
    line = refused("pretrain", "--spec", make_run().canonical(), "--seed", 1, *where)
    assert f"{tmp_path}/nowhere: not a prepared data set, meta.json is missing: prepare it first" in line


def save_encoder(run: RunSpec, folder: Path, claimed: RunSpec | None = None) -> Path:
    """Gives a folder the weights of a run, which the file may claim to be another's."""
    from safetensors.torch import save_file

    from issl.models import encoders

    tensors = encoders.build(run.encoder, run.data.image_size).state_dict()
    save_file(tensors, folder / "encoder.safetensors", metadata=file_notes(claimed or run, 1))
    return folder


def test_a_batch_larger_than_the_data_is_refused(refused, synthetic, make_run, tmp_path):
    run = make_run(optim={"batch_size": 65})
    where = ("--data", synthetic, "--out", tmp_path / "run", "--settings", CPU)
    line = refused("pretrain", "--spec", run.canonical(), "--seed", 1, *where)
    assert "optim.batch_size 65 exceeds the 64 training images" in line


def test_a_gpu_is_not_silently_replaced_by_the_cpu(refused, synthetic, make_run, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    spec = ("--spec", make_run().canonical())
    line = refused("pretrain", *spec, "--seed", 1, "--data", synthetic, "--out", tmp_path / "run")  # gpu is the default
    assert "no GPU here" in line and "execution={device: cpu}" in line


def test_a_checkpoint_of_another_run_is_refused_and_kept(refused, synthetic, make_run, tmp_path):
    import torch

    last = tmp_path / "run/checkpoints/last.ckpt"
    last.parent.mkdir(parents=True)
    torch.save({"identity": {"spec": make_run().canonical(), "seed": 2}}, last)
    where = ("--data", synthetic, "--out", tmp_path / "run", "--settings", CPU)
    line = refused("pretrain", "--spec", make_run().canonical(), "--seed", 1, *where)
    assert f"{last}: belongs to another run" in line


@pytest.fixture
def featurize(refused, synthetic, tmp_path):
    """Refusals of featurizing the synthetic data set with an encoder."""

    def run(encoder: object) -> str:
        where = ("--data", synthetic, "--out", tmp_path / "z", "--settings", CPU)
        return refused("featurize", "--encoder", encoder, "--spec", ENCODING, *where)

    return run


def test_weights_of_another_architecture_are_refused(featurize, make_run, tmp_path):
    save_encoder(make_run(encoder={"width": 16, "dim": 128}), tmp_path, claimed=make_run())
    assert f"{tmp_path / 'encoder.safetensors'}: not the " in featurize(tmp_path)


@pytest.mark.parametrize("length", [None, 0, 5, 1000], ids=["absent", "empty", "no header", "half"])
def test_weights_that_cannot_be_read_are_named(featurize, make_run, tmp_path, length):
    weights = save_encoder(make_run(), tmp_path) / "encoder.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    if length is not None:
        weights.write_bytes(content[:length])
    line = featurize(tmp_path)
    assert str(weights) in line or f"{tmp_path}: not the folder of a finished run: it has no {weights.name}" in line


def test_an_unknown_encoder_is_named(featurize):
    assert "dissl_resnet50_dNone_e100_m3" in featurize("dissl_resnet50_dNone_e100_m3")


@pytest.fixture
def probe(refused, synthetic, tmp_path):
    """Refusals of probes on features of the synthetic data set, which has 96 images."""

    def run(features: Path) -> str:
        where = ("--features", features, "--data", synthetic, "--out", tmp_path / "scores.csv", "--settings", CPU)
        return refused("probe", "--encoder", tmp_path, "--spec", ENCODING, "--probes", PROBES, "--seed", 1, *where)

    return run


@pytest.mark.parametrize("content", [None, b"", b"not an array"], ids=["absent", "empty", "something else"])
def test_features_that_cannot_be_read_are_named(probe, tmp_path, content):
    shard = tmp_path / "features/000000000.npy"
    if content is not None:
        shard.parent.mkdir()
        shard.write_bytes(content)
    assert str(shard.parent if content is None else shard) in probe(shard.parent)


def test_features_of_another_data_set_are_refused(probe, tmp_path):
    features = tmp_path / "features"
    features.mkdir()
    np.save(features / "000000000.npy", np.zeros((95, 8), np.float16))
    assert f"{features}: its 1 shards are not all 96 features; delete it" in probe(features)


OTHER_DATA = json.dumps(SYNTHETIC | {"classes": 5})


def test_arrays_of_another_data_set_than_the_spec_says_are_refused(refused, probe, synthetic, make_run, tmp_path):
    """Results would be filed under the spec, and made from the arrays."""
    where = ("--data", synthetic, "--settings", CPU)
    says = f'{synthetic}: holds another data set, {{"classes": 4, '
    run = json.dumps(make_run().model_dump(mode="json") | {"data": json.loads(OTHER_DATA)})
    assert says in refused("pretrain", "--spec", run, "--seed", 1, *where, "--out", tmp_path / "run")
    spec = Encoding.model_validate({"data": json.loads(OTHER_DATA), "resize": 16, "crop": 16}).canonical()
    what = ("--encoder", save_encoder(make_run(), tmp_path), "--spec", spec)
    assert says in refused("featurize", *what, *where, "--out", tmp_path / "z")
    what = (*what, "--probes", PROBES, "--seed", 1, "--features", tmp_path / "z")
    assert says in refused("probe", *what, *where, "--out", tmp_path / "s.csv")


def test_an_output_that_was_made_from_something_else_is_refused_and_kept(call, refused, make_run, tmp_path):
    """By hand; the workflow's paths name what is in them."""
    folder = {name: tmp_path / name for name in ("data", "run", "z", "s.csv")}
    settings = ("--settings", CPU)
    run = make_run(optim={"epochs": 2})

    def prepare(spec):
        return ("prepare", "--spec", spec, "--out", folder["data"], *settings)

    def pretrain(seed, **changes):
        spec = ("--spec", make_run(**{"optim": {"epochs": 2}} | changes).canonical())
        return ("pretrain", *spec, "--seed", seed, "--data", folder["data"], "--out", folder["run"], *settings)

    def featurize(**changes):
        spec = json.dumps(json.loads(ENCODING) | changes)
        what = ("--encoder", folder["run"], "--spec", spec, "--data", folder["data"])
        return ("featurize", *what, "--out", folder["z"], *settings)

    def probe(probes, seed):
        what = ("--encoder", folder["run"], "--spec", ENCODING, "--probes", probes, "--seed", seed)
        where = ("--features", folder["z"], "--data", folder["data"], "--out", folder["s.csv"])
        return ("probe", *what, *where, *settings)

    right = [prepare(json.dumps(SYNTHETIC)), pretrain(1), featurize(), probe(PROBES, 1)]
    for command in (*right, *right):  # the same ones again are no mistake
        assert call(*command).status == 0
    other = "choose another --out, or delete it"
    for command, says in {
        prepare(OTHER_DATA): f"data/meta.json: a data set with another spec: {other}",
        pretrain(2): f"run/run.json: a finished training with another seed: {other}",
        pretrain(1, optim={"epochs": 3}): f"run/run.json: a finished training with another spec: {other}",
        featurize(crop=8): f"z.json: features with another encoding: {other}",
        probe(PROBES, 2): f"s.json: scores with another seed: {other}",
        probe('{"probes": [{"kind": "svm"}]}', 1): f"s.json: scores with another grid and spec: {other}",
    }.items():
        assert says in refused(*command)
    trunk = [*probe(PROBES, 1)]
    trunk[trunk.index(ENCODING)] = json.dumps(json.loads(ENCODING) | {"layer": "trunk"})
    folder["s.csv"].with_suffix(".json").unlink()
    assert f"{folder['z']}: features of other encoding than these probes are for" in refused(*trunk)
    save_encoder(run, folder["run"])  # as if it were pretrained again
    assert f"z.json: features with another weights: {other}" in refused(*featurize())
    assert f"{folder['z']}: features of other weights than these probes are for" in refused(*probe(PROBES, 1))


@pytest.mark.parametrize("name", ["s.json", "s", "s.csv.gz"])
def test_an_output_in_the_place_of_its_own_record_is_refused(refused, synthetic, tmp_path, name):
    what = ("--encoder", "x", "--spec", ENCODING, "--data", synthetic, "--out", tmp_path / name, "--settings", CPU)
    probes = ("--probes", PROBES, "--seed", 1, "--features", tmp_path / "z")
    assert f"--out {tmp_path / name}: must end in .csv" in refused("probe", *what, *probes)
    if "." in name:
        assert f"--out {tmp_path / name}: must be a folder without an ending" in refused("featurize", *what)


def test_a_damaged_record_of_an_output_is_refused(refused, tmp_path):
    (tmp_path / "meta.json").write_text("[" * 100_000)
    line = refused("prepare", "--spec", json.dumps(SYNTHETIC), "--out", tmp_path, "--settings", CPU)
    assert f"{tmp_path}/meta.json: cannot be read" in line and "delete it and make it again" in line


def test_a_damaged_note_on_features_is_refused_or_remade(probe, synthetic, tmp_path):
    from issl.probing import shards

    features = tmp_path / "features"
    features.mkdir()
    (features / "about.json").write_text("{")
    assert f"{features}/about.json: cannot be read" in probe(features)
    shards.discard_others(features, {"data": 1})
    assert not features.exists()


def test_an_unexpected_error_keeps_its_traceback_in_the_log(call, tmp_path, monkeypatch):
    from issl import data

    def broken(*_, **__):
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr(data, "prepare", broken)
    log = tmp_path / "job.log"
    with pytest.raises(ZeroDivisionError):
        call("prepare", "--spec", json.dumps(SYNTHETIC), "--out", tmp_path / "data", "--log", log)
    assert "Traceback" in log.read_text() and "a mistake of ours" in log.read_text()


def test_a_full_disk_is_one_line(refused, tmp_path, monkeypatch):
    from issl import data

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "images.npy")

    monkeypatch.setattr(data, "prepare", full)
    line = refused("prepare", "--spec", json.dumps(SYNTHETIC), "--out", tmp_path / "data")
    assert line == "error: images.npy: No space left on device\n"


# --- plan, show, schema ---


def test_plan_imports_none_of_the_heavy_libraries():
    """Where nothing was measured yet."""
    answer = command("plan", options=("-X", "importtime"))
    assert answer.status == 0 and "cissl-z2048-e1000-" in answer.out
    modules = {line.rpartition("|")[2].strip() for line in answer.err.splitlines() if line.startswith("import time:")}
    assert {"issl.cli", "issl.config.plan", "yaml"} <= modules
    assert not modules & {"torch", "pytorch_lightning", "numpy", "pandas", "matplotlib", "PIL", "sklearn", "wandb"}


@pytest.fixture
def planned(call, monkeypatch, tmp_path):
    """The runs that `issl plan` shows in a folder without results, by id, with the other columns."""
    monkeypatch.chdir(tmp_path)
    copy_config(tmp_path)

    def plan(*arguments):
        found = call("plan", *arguments, "--json")
        assert (found.status, found.err) == (0, "")
        return {run["run"]: run for preset in json.loads(found.out) for run in preset["runs"]}

    return plan


def test_plan_lists_every_run_of_the_paper_once(planned):
    """5 + 5 rows of the tables, 3 + 8 points of the figures; CISSL with dimension and epochs is in two of them."""
    runs = planned()
    assert len(runs) == 5 + 6 + 2 + 3 + 8 - 2
    (shared,) = (run for run in runs.values() if {"table1_contrastive", "fig7c"} <= {*run["results"]})
    assert shared["run"].startswith("cissl-z2048-e1000-") and shared["epochs"] == 1000


def test_plan_shows_the_runs_of_some_experiments(planned):
    assert len(planned("fig7c")) == 8 and len(planned("fig7c", "fig7a")) == 8 + 3


def test_plan_shows_what_is_on_request_if_it_is_named(planned):
    one = planned("fig7a_extended")
    assert len(one) == 4 and sum("fig7a" in run["results"] for run in one.values()) == 3
    assert not any("fig7a_extended" in run["results"] for run in planned().values())


def test_plan_shows_the_runs_that_a_figure_takes_from_other_experiments(planned):
    """Figure 7b pretrains nothing of its own, and shows every run of the paper."""
    assert planned("fig7b").keys() == planned().keys()


def test_plan_shows_a_preset_by_its_name(planned):
    assert planned("tiny").keys() == planned("--preset", "tiny").keys() and "simclr-z64-e9-47103cbb" in planned("tiny")


def test_plan_as_a_table_ends_with_the_total_and_the_command(call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    copy_config(tmp_path)
    *_, total, start = call("plan", "fig7c").out.splitlines()
    assert total.startswith("8 runs, 8 with their seeds: 0 done") and "Left: 8,000 epochs; hours are unknown" in total
    assert start == "start: snakemake results/fig7c.pdf --profile slurm"


def test_plan_refuses_an_unknown_result_with_the_nearest(call):
    answer = call("plan", "fig7")
    check_refusal(answer)
    assert "unknown result 'fig7', did you mean 'fig7" in answer.err


def test_plan_measures_first_if_it_is_told_to(call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    copy_config(tmp_path)
    answer = call("plan", "--preset", "tiny", "table1_contrastive", "--measure", "--steps", "1")
    assert answer.status == 0 and " job-minutes (" in answer.out
    assert "1 of 4: simclr-z64-e9-47103cbb: " in answer.err


def test_status_says_what_is_left(call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_CONF", os.devnull)  # a Slurm that is installed and does not run would be waited for
    copy_config(tmp_path)
    assert call("status", "fig7c").out == "paper: trainings: 8 not started; scores: 0 of 8\n"
    of_paper, of_tiny = (call("status", preset).out for preset in ("paper", "tiny"))
    assert of_paper.startswith("paper: trainings: 22 not started; ") and of_tiny.startswith("tiny: trainings: ")
    assert call("status").out == of_paper  # where nothing has begun
    assert call("status", "--preset", "tiny").out == of_tiny
    (tmp_path / "results/tiny/logs").mkdir(parents=True)
    assert call("status").out == of_tiny
    (tmp_path / "results/runs").mkdir()
    assert call("status").out == of_paper + of_tiny
    listed = call("status", "fig7c", "--all").out.splitlines()
    assert sum(line.startswith(" cissl") for line in listed) == 8


def test_a_setting_without_a_value_is_one_line(call):
    answer = call("plan", "--config", "seeds")
    check_refusal(answer)
    assert answer.err.startswith("error: --config seeds: must be KEY=VALUE, as in ")


def test_a_run_is_shown_by_its_id_and_by_any_path_in_its_folder(call, planned):
    (first, *_) = planned("fig7c")
    folder = f"results/runs/{first}"
    shown = {
        call("show", f"{prefix}{ending}").out
        for prefix, ending in (
            (folder.rpartition("/")[2], ""),
            (folder, ""),
            (folder, "/s1"),
            (folder, "/s1/run.json"),
            (f"./{folder}", "/"),
        )
    }
    assert len(shown) == 1 and "objective" in shown.pop()


def test_plan_names_a_missing_config(call):
    answer = call("plan", "--configfile", "nowhere.yaml")
    check_refusal(answer)
    assert answer.err == "error: nowhere.yaml: cannot be read: No such file or directory\n"


def test_show_prints_every_setting_with_its_default(call, planned):
    name = next(run for run in planned() if run.startswith("dissl-z2048"))
    status, out, err = call("show", name)
    assert (status, err) == (0, "")
    shown = json.loads(out)
    assert run_id(RunSpec.model_validate(shown)) == name
    assert shown["objective"]["entropy_weight"] == 2.3  # defaults, which config.yaml does not say
    assert shown["optim"]["clip_value"] == 2.0
    assert shown["encoder"]["dim"] == 2048  # and what it says
    for section, model in RunSpec.model_fields.items():
        assert section in shown
        if hasattr(model.annotation, "model_fields"):
            assert shown[section].keys() == model.annotation.model_fields.keys()


def test_show_leaves_out_what_an_untrained_encoder_does_not_use(call, planned):
    name = next(run for run in planned("tiny") if run.startswith("untrained"))
    shown = json.loads(call("show", name).out)
    assert shown["objective"]["name"] == "untrained" and "encoder" in shown
    assert "epochs" not in json.dumps(shown)
    assert run_id(RunSpec.model_validate(shown)) == name


def test_show_refuses_an_unknown_run_with_the_nearest(call, planned):
    (name, *_) = planned()
    answer = call("show", name[:-1])
    check_refusal(answer)
    assert f"unknown run '{name[:-1]}', did you mean '{name}'?" in answer.err


def test_schema_prints_the_schema_of_the_config(call):
    status, out, err = call("schema")
    assert (status, err) == (0, "")
    assert json.loads(out)["properties"].keys() == {*Config.model_fields, "presets"}


def test_help_lists_every_command_and_succeeds(call):
    for arguments in ([], ["--help"]):
        answer = call(*arguments)
        text = answer.out + answer.err
        assert text.startswith("Usage: ")
        for name in ("prepare", "pretrain", "featurize", "probe", "export", "plan", "show", "schema"):
            assert f"  {name} " in text


# --- success is silent ---


def test_the_commands_lead_from_nothing_to_scores_with_one_line_at_the_end_of_a_training(call, make_run, tmp_path):
    run, probes = make_run().canonical(), ProbeGrid.model_validate({"probes": [{"kind": "linear", "epochs": 2}]})
    data = ("--data", tmp_path / "data", "--settings", CPU)
    log = {name: tmp_path / f"logs/deep/{name}.log" for name in ("prepare", "pretrain", "featurize", "probe")}

    prepared = command(
        *("prepare", "--spec", json.dumps(SYNTHETIC), "--out", tmp_path / "data", "--log", log["prepare"])
    )
    assert prepared == Answer(0, "", "")
    assert np.load(tmp_path / "data/images.npy").shape == (96, 16, 16, 3)

    trained = command(
        *("pretrain", "--spec", run, "--seed", 1, *data, "--out", tmp_path / "run", "--log", log["pretrain"])
    )
    assert trained.status == 0 and not trained.err
    assert re.fullmatch(
        r"simclr-z64-e3-\w{8} seed 1: 3 epochs in [\d:]+, loss [\d.]+, online accuracy .+ %\n", trained.out
    )
    for words in ("seed 1 on CPU", "epoch 1/3", "epoch 3/3", "images/s"):
        assert words in log["pretrain"].read_text()

    features, what = tmp_path / "features", ("--encoder", tmp_path / "run", "--spec", ENCODING)
    encoded = call("featurize", *what, *data, "--out", features, "--log", log["featurize"])
    assert encoded == Answer(0, "", "")
    assert "features of 96 of 96 images" in log["featurize"].read_text()
    assert sum(len(np.load(shard)) for shard in features.glob("*.npy")) == 96

    scores, read = tmp_path / "scores.csv", ("--probes", probes.canonical(), "--seed", 1, "--features", features)
    scored = call("probe", *what, *read, *data, "--out", scores, "--log", log["probe"])
    assert scored == Answer(0, "", "")
    assert "linear: weight decay 1e-06, epochs 2, 64 labels: top-1 " in log["probe"].read_text()
    assert len(scores.read_text().splitlines()) == 1 + 3  # a line for each metric

    assert all("error" not in path.read_text() for path in log.values())
    private = [path for path in tmp_path.rglob(".*") if path.is_file() and path.suffix != ".lock"]
    assert not private, "something private was left behind"


def test_without_a_log_file_messages_go_to_stderr(call, synthetic, make_run, tmp_path):
    what = ("--encoder", save_encoder(make_run(), tmp_path), "--spec", ENCODING)
    status, _, err = call("featurize", *what, "--data", synthetic, "--out", tmp_path / "z", "--settings", CPU)
    assert status == 0
    assert "features of 96 of 96 images" in err
