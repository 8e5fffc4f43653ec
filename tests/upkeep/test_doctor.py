"""What is missing is said before anything is submitted, each thing in one line with what to do about it."""

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner
from project import PROJECT

from issl.cli import issl
from issl.config.plan import load
from issl.config.presets import merge, read_config
from issl.errors import UserError
from issl.jobs import slurm
from issl.upkeep import doctor, site

SINFO = "gpu*|up|1-00:00:00|16|128000|gpu:a100:4(S:0-1)|ib,big\nshort|up|1:00:00|8+|32000+|(null)|(null)\n"
SETTINGS = {"executor": "slurm", "slurm-status-command": "squeue"}


@pytest.mark.parametrize(
    ("gres", "expected"),
    [
        ("(null)", {}),
        ("gpu:2", {"": 2}),
        ("gpu", {"": 1}),
        ("gpu:a100:4(S:0-1)", {"a100": 4}),
        ("gpu:h100-80gb:8,gpu:3,shard:16", {"h100-80gb": 8, "": 3}),
        ("gpu:a100", {"a100": 1}),
    ],
)
def test_gpus_are_parsed_from_slurms_gres(gres, expected):
    assert slurm.gpus(gres) == expected


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Pretended Slurm commands on the path; the fixture's function says what each prints."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def answers(**commands):
        for name, (text, status) in commands.items():
            (folder / f"{name}.txt").write_text(text)
            script = folder / name
            script.write_text(f"#!/bin/sh\ncat {folder}/{name}.txt {'>&2' if status else ''}\nexit {status}\n")
            script.chmod(script.stat().st_mode | stat.S_IEXEC)

    answers(
        sinfo=(SINFO, 0),
        scontrol=("MinJobAge               = 300 sec\n", 0),
        sacct=("Slurm accounting storage is disabled\n", 1),
        srun=("no nodes today\n", 1),
    )
    return answers


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Plans of the project's config with changes, in a folder of its own that has the profiles."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profiles").mkdir()
    for name in ("slurm", "local"):
        (tmp_path / "profiles" / name).symlink_to(PROJECT / "profiles" / name)

    def build(preset="results", settings=None, **hardware):
        raw = merge(read_config(PROJECT / "config.yaml"), {"hardware": hardware})
        (tmp_path / "config.yaml").write_text(json.dumps(raw))
        if settings is not None:
            (tmp_path / site.SITE).parent.mkdir(exist_ok=True)
            (tmp_path / site.SITE).write_text(json.dumps(settings))
        return load("config.yaml")[preset]

    return build


def test_nodes_are_parsed_from_sinfo(cluster):
    first, second = slurm.nodes()
    assert (first.partition, first.default, first.up, first.minutes) == ("gpu", True, True, 1440)
    assert (first.cores, first.mem_mb, first.gpus, first.features) == (16, 128000, {"a100": 4}, {"ib", "big"})
    assert (second.default, second.minutes, second.cores, second.gpus, second.features) == (False, 60, 8, {}, set())


def said(plan, profile="slurm", trial=False):
    return [(f.what, f.verdict, f.says) for f in doctor.findings(plan, profile, trial)]


def wrong(plan, **given):
    """The complaints about pretraining where the profile gives it these resources."""
    return [finding.says for finding in doctor._rule(plan, "pretrain", given, slurm.nodes())]


def test_a_complete_cluster_passes_every_check(cluster, plan):
    seen = said(plan("results/tiny", {"slurm-status-command": "squeue"}))
    assert [(what, verdict) for what, verdict, _ in seen] == [
        (what, "ok") for what in ("disk", "results", "plugin", "states", "jobs")
    ]


@pytest.mark.parametrize(
    ("given", "hardware", "complaint"),
    [
        ({"slurm_partition": "gpus"}, {}, "slurm_partition: no partition 'gpus', did you mean 'gpu'?"),
        ({"gpu_model": "a10"}, {}, "no GPU of type 'a10' in partition gpu, did you mean 'a100'?"),
        ({"gres": "gpu:h200:1"}, {}, "no GPU of type 'h200' in partition gpu, allowed: a100"),
        ({}, {"gpus": 5}, "asks for 5 GPUs on a node, partition gpu has 4: hardware.pretrain.gpus"),
        (
            {"slurm_partition": "short", "runtime": 9, "mem_mb": 9},
            {"gpus": 1},
            "asks for 1 GPUs on a node, partition short has 0",
        ),
        ({"constraint": "big&nvlink"}, {}, "constraint: no node of partition gpu has the feature 'nvlink'"),
        ({}, {"threads": 17}, "asks for 17 cores, partition gpu has 16: hardware.pretrain.threads"),
        ({}, {"threads": 5, "gpus": 4, "nodes": 2}, "asks for 20 cores, partition gpu has 16"),
        ({"mem_mb": 200000}, {}, "asks for 200 GB of memory, partition gpu has 128: hardware.pretrain.mem_gb"),
        (
            {},
            {"minutes": 1500},
            "minutes, partition gpu allows 1440; set hardware.pretrain.minutes to it and",
        ),
    ],
)
def test_each_missing_resource_is_one_line(cluster, plan, given, hardware, complaint):
    (line,) = wrong(plan(pretrain=hardware), **given)
    assert complaint in line


def test_requests_that_fit_are_accepted(cluster, plan):
    assert wrong(plan(), gpu_model="a100", constraint="ib|nvlink") == []  # alternatives are for Slurm to judge
    assert wrong(plan(pretrain={"gpus": 4, "threads": 4, "nodes": 2})) == []


def test_a_down_partition_and_a_missing_default_are_reported(cluster, plan):
    cluster(sinfo=(SINFO.replace("|up|1-", "|down|1-"), 0))
    assert wrong(plan()) == ["partition gpu takes no jobs at present (profiles/default/config.yaml: slurm_partition)"]
    cluster(sinfo=(SINFO.replace("*", ""), 0))
    assert wrong(plan()) == [
        "no default partition: say slurm_partition in profiles/default/config.yaml, allowed: gpu, short"
    ]


def states(plan, settings):
    return next(says for what, _, says in said(plan("results/tiny", settings)) if what == "states")


def test_the_status_command_of_snakemake_is_checked(cluster, plan):
    disabled = "sacct: Slurm accounting storage is disabled: say 'slurm-status-command: squeue' in profiles/default/"
    assert states(plan, {}).startswith(disabled)
    assert states(plan, {"slurm-status-command": "squeue"}) == "squeue tells how jobs ended"
    cluster(scontrol=("MinJobAge = 30 sec", 0))
    assert "squeue forgets a job 30 s after its end" in states(plan, {"slurm-status-command": "squeue"})
    cluster(sacct=("", 0))
    assert states(plan, {}) == "sacct tells how jobs ended"


def test_a_machine_without_slurm_is_reported(cluster, plan):
    cluster(sinfo=("Unable to contact slurm controller (connect failure)", 1))
    assert said(plan("results/tiny"))[-1] == (
        "Slurm",
        "missing",
        "Slurm does not answer (Unable to contact slurm controller (connect failure)): run this where you submit jobs",
    )


def test_the_trial_job_checks_the_shared_results(cluster, plan, tmp_path):
    tiny = plan("results/tiny", {"slurm-status-command": "squeue"})
    assert said(tiny, trial=True)[-1] == ("trial job", "missing", "no job ran within 180 s (no nodes today)")
    seen = {"host": "n7", "mark": True, "lock": "", "torch": "2", "cuda": []}
    cluster(srun=(f"a greeting\n{json.dumps(seen)}\n", 0))
    assert said(tiny, trial=True)[-1] == ("shared results", "ok", f"n7 reads, writes and locks {tmp_path}")
    cluster(srun=(json.dumps(seen | {"mark": False}), 0))
    assert said(tiny, trial=True)[-1][2].startswith(f"n7 does not see {tmp_path}: results/ must lie on a file system")
    paper = plan(settings={"slurm-status-command": "squeue"})
    assert said(paper, trial=True)[-1] == (
        "CUDA in a job",
        "missing",
        "torch 2 sees no GPU on n7: driver, or a torch without CUDA",
    )
    cluster(srun=(json.dumps(seen | {"cuda": ["NVIDIA H100"]}), 0))
    assert said(paper, trial=True)[-1] == ("CUDA in a job", "ok", "NVIDIA H100")
    assert not list(tmp_path.glob(".issl-doctor*"))


def test_a_trial_job_sees_the_shared_file_and_the_lock(tmp_path):
    mark = tmp_path / "mark"
    assert not doctor.look(mark)["mark"]
    mark.write_text("")
    seen = doctor.look(mark)
    assert seen["mark"] and seen["lock"] == "" and [path.name for path in tmp_path.iterdir()] == ["mark"]


def test_a_results_folder_without_space_or_locks_is_reported(plan, monkeypatch):
    tiny = plan("results/tiny")
    usage = doctor.shutil.disk_usage(".")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage._replace(free=10**6))
    (disk,) = [says for what, verdict, says in said(tiny, None) if (what, verdict) == ("disk", "missing")]
    assert disk.startswith("0.0 GB free in") and disk.endswith("make room, or make results/ a link to another disk")

    def refuse(*_, **__):
        raise NotImplementedError("flock")

    monkeypatch.setattr("issl.jobs.locks.FileLock.acquire", refuse)
    (results,) = [says for what, verdict, says in said(tiny, None) if (what, verdict) == ("results", "missing")]
    assert "must lie on a file system with locks" in results


def test_the_required_space_grows_with_the_request(plan):
    few, many = plan(), plan(pretrain={"gpus": 1})
    assert doctor._needed(few) == doctor._needed(many)
    raw = read_config("config.yaml") | {"seeds": [1, 2, 3]}
    Path("config.yaml").write_text(json.dumps(raw))
    arrays = 1.2 * 100_000 * 3 * 64**2
    assert doctor._needed(load("config.yaml")["results"]) - arrays == pytest.approx(3 * (doctor._needed(few) - arrays))


def test_profiles_are_read_as_snakemake_reads_them(plan, tmp_path):
    plan("results", {"default-resources": ["slurm_partition=a100", "mem_mb=7"], "jobs": 3})
    settings = site.profile("slurm")
    assert (settings["executor"], settings["jobs"]) == ("slurm", 3)  # the site's file lies over the profile
    assert site.resources(settings, "probe") == {"slurm_partition": "a100", "mem_mb": "7"}
    nested = {"default-resources": {"a": 1, "b": 2}, "set-resources": {"probe": {"b": 3}, "pretrain": {"b": 4}}}
    assert site.resources(nested, "probe") == {"a": 1, "b": 3}
    assert site.resources({"set-resources": ["probe:b=3", "pretrain:b=4"]}, "probe") == {"b": "3"}
    with pytest.raises(UserError, match=r"no profile 'slrum': looked for slrum/config.yaml and profiles/slrum/config"):
        site.profile("slrum")


def test_the_command_exits_with_1_if_something_is_missing(cluster, plan):
    plan("results/tiny", {})
    done = CliRunner().invoke(issl, ["doctor", "--profile", "slurm", "--preset", "tiny", "--no-job"])
    assert done.exit_code == 1
    assert [line.split()[:2] for line in done.output.splitlines()] == [
        ["ok", "disk"],
        ["ok", "results"],
        ["ok", "plugin"],
        ["missing", "states"],
        ["ok", "jobs"],
    ]
    plan("results/tiny", {"slurm-status-command": "squeue"})
    assert CliRunner().invoke(issl, ["doctor", "--profile", "slurm", "--preset", "tiny", "--no-job"]).exit_code == 0
    unknown = CliRunner().invoke(issl, ["doctor", "--preset", "tinny"])
    assert isinstance(unknown.exception, UserError) and "did you mean 'tiny'?" in str(unknown.exception)
