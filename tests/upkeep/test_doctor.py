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

SINFO = "gpu*|up|1-00:00:00\nshort|up|1:00:00\nlong|up|UNLIMITED\n"
SETTINGS = {"executor": "slurm", "slurm-status-command": "squeue"}


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

    def takes_all_but(*options):
        """Slurm refuses a job with one of these options, as sbatch does that only tests."""
        refusal = "echo 'allocation failure: Requested node configuration is not available' >&2; exit 1"
        cases = "".join(f"{option}) {refusal};;\n" for option in options)
        script = folder / "sbatch"
        script.write_text(f'#!/bin/sh\nfor option; do case "$option" in\n{cases}*) ;; esac; done\n')
        script.chmod(script.stat().st_mode | stat.S_IEXEC)

    answers.takes_all_but = takes_all_but
    takes_all_but()
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


def test_partitions_are_parsed_from_sinfo(cluster):
    found = [(each.name, each.default, each.up, each.minutes) for each in slurm.partitions()]
    assert found == [("gpu", True, True, 1440), ("short", False, True, 60), ("long", False, True, None)]


def said(plan, profile="slurm", trial=False):
    return [(f.what, f.verdict, f.says) for f in doctor.findings(plan, profile, trial)]


def wrong(plan, **given):
    """The complaints about pretraining where the profile gives it these resources."""
    return [finding.says for finding in doctor._rule(plan, "pretrain", given, slurm.partitions())]


def test_a_complete_cluster_passes_every_check(cluster, plan):
    seen = said(plan("results/tiny", {"slurm-status-command": "squeue"}))
    assert [(what, verdict) for what, verdict, _ in seen] == [
        (what, "ok") for what in ("disk", "results", "cache", "plugin", "states", "jobs")
    ]


@pytest.mark.parametrize(
    ("given", "hardware", "refused", "complaint"),
    [
        ({}, {"gpus": 5}, "--gres=gpu:5", "without --gres=gpu:5 (hardware.pretrain.gpus)"),
        ({"gpu_model": "a10"}, {}, "--gres=gpu:a10:1", "without --gres=gpu:a10:1 (gres or gpu_model in profiles/"),
        ({"gres": "gpu:h200:1"}, {}, "--gres=gpu:h200:1", "without --gres=gpu:h200:1 (gres or gpu_model in profiles/"),
        ({"constraint": "big"}, {}, "--constraint=big", "without --constraint=big (constraint in profiles/default/"),
        ({"slurm_account": "me"}, {}, "--account=me", "without --account=me (slurm_account in profiles/default/"),
        ({}, {"threads": 17}, "--cpus-per-task=17", "without --cpus-per-task=17 (hardware.pretrain.threads)"),
        ({"cpus_per_task": 9}, {}, "--cpus-per-task=9", "without --cpus-per-task=9 (hardware.pretrain.threads)"),
        ({"mem_mb": 200000}, {}, "--mem=200000M", "without --mem=200000M (hardware.pretrain.mem_gb)"),
        ({}, {"gpus": 4, "nodes": 9}, "--nodes=9", "without --nodes=9 (hardware.pretrain.nodes)"),
        ({}, {"gpus": 4, "nodes": 2}, "--ntasks-per-node=4", "without --ntasks-per-node=4 (hardware.pretrain.gpus)"),
        ({"slurm_partition": "long"}, {}, "--partition=long", "; no single option is the cause"),
    ],
)
def test_what_slurm_refuses_is_one_line_with_the_option_to_change(cluster, plan, given, hardware, refused, complaint):
    cluster.takes_all_but(refused)
    (line,) = wrong(plan(pretrain=hardware), **given)
    assert line.startswith("Slurm refuses its jobs (Requested node configuration is not available)")
    assert complaint in line and line.count("--") == ("--" in complaint)


def test_an_unknown_partition_is_reported_with_the_nearest_name(cluster, plan):
    assert wrong(plan(), slurm_partition="gpus") == ["slurm_partition: no partition 'gpus', did you mean 'gpu'?"]


def test_a_job_beyond_the_time_limit_is_reported_for_slurm_would_let_it_wait(cluster, plan):
    (line,) = wrong(plan(pretrain={"minutes": 1500}))
    assert "minutes, partition gpu allows 1440; set hardware.pretrain.minutes to that and" in line
    (line,) = wrong(plan(), slurm_partition="short", runtime=61)
    assert line.startswith("requests 61 minutes, partition short allows 60")
    assert wrong(plan(), slurm_partition="long", runtime=10**6) == []


def test_the_time_of_a_probe_includes_its_features_for_both_may_be_one_job(cluster, plan):
    built = plan(featurize={"minutes": 30}, probe={"minutes": 120})
    given = {"slurm_partition": "short"}
    (line,) = [finding.says for finding in doctor._rule(built, "probe", given, slurm.partitions())]
    assert line == "requests 150 minutes, partition short allows 60: hardware.probe.minutes"


def test_requests_that_fit_are_accepted(cluster, plan):
    cluster.takes_all_but("--mem=1M")
    assert wrong(plan(), gpu_model="a100", constraint="ib|nvlink") == []
    assert wrong(plan(pretrain={"gpus": 4, "threads": 4, "nodes": 2})) == []


def test_a_down_partition_and_a_missing_default_are_reported(cluster, plan):
    cluster(sinfo=(SINFO.replace("|up|1-", "|down|1-"), 0))
    assert wrong(plan()) == ["partition gpu accepts no jobs now (profiles/default/config.yaml: slurm_partition)"]
    cluster(sinfo=(SINFO.replace("*", ""), 0))
    assert wrong(plan()) == [
        "no default partition: set slurm_partition in profiles/default/config.yaml, allowed: gpu, long, short"
    ]


def states(plan, settings):
    return next(says for what, _, says in said(plan("results/tiny", settings)) if what == "states")


def test_the_status_command_of_snakemake_is_checked(cluster, plan):
    assert states(plan, {}) == "squeue tells how jobs ended", "the workflow asks it where sacct does not know"
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
    assert said(tiny, trial=True)[-1][2].startswith(f"n7 does not see {tmp_path}: results/ must be on a file system")
    paper = plan(settings={"slurm-status-command": "squeue"})
    assert said(paper, trial=True)[-1] == (
        "CUDA in a job",
        "missing",
        "torch 2 sees no GPU on n7: check the driver, and that torch has CUDA",
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
    assert disk.startswith("0.0 GB free in") and disk.endswith("free some space, or link results/ to a larger disk")

    def refuse(*_, **__):
        raise NotImplementedError("flock")

    monkeypatch.setattr("issl.jobs.locks.FileLock.acquire", refuse)
    (results,) = [says for what, verdict, says in said(tiny, None) if (what, verdict) == ("results", "missing")]
    assert "must be on a file system with locks" in results


def test_a_home_that_cannot_be_written_is_reported_with_the_variable_to_set(plan, tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: not Path(path).is_relative_to(tmp_path))
    tiny = plan("results/tiny")
    (says,) = [says for what, verdict, says in said(tiny, None) if (what, verdict) == ("cache", "missing")]
    assert says.startswith(str(tmp_path)) and says.endswith("set XDG_CACHE_HOME to a folder that can")
    monkeypatch.setenv("XDG_CACHE_HOME", "/")
    assert ("cache", "ok", "/ can be written") in said(tiny, None)


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
    cluster(scontrol=("MinJobAge = 30 sec", 0))
    plan("results/tiny", {})
    done = CliRunner().invoke(issl, ["doctor", "--profile", "slurm", "--preset", "tiny", "--no-job"])
    assert done.exit_code == 1
    assert [line.split()[:2] for line in done.output.splitlines()] == [
        ["ok", "disk"],
        ["ok", "results"],
        ["ok", "cache"],
        ["ok", "plugin"],
        ["missing", "states"],
        ["ok", "jobs"],
    ]
    cluster(scontrol=("MinJobAge = 300 sec", 0))
    plan("results/tiny", {"slurm-status-command": "squeue"})
    assert CliRunner().invoke(issl, ["doctor", "--profile", "slurm", "--preset", "tiny", "--no-job"]).exit_code == 0
    unknown = CliRunner().invoke(issl, ["doctor", "--preset", "tinny"])
    assert isinstance(unknown.exception, UserError) and "did you mean 'tiny'?" in str(unknown.exception)
