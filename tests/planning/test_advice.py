"""`issl plan --budget` and `--decide`: what they answer, that their line runs just that, and one line for a mistake."""

import json
import re
import shlex
from dataclasses import replace
from typing import NamedTuple

import pandas as pd
import pytest
from click.testing import CliRunner
from project import PROJECT, copy_config, planned, snakemake

from issl.cli import issl
from issl.config import plan as catalog
from issl.errors import UserError
from issl.planning.advice import Limits, advise, outlook
from issl.planning.asked import by_default
from issl.planning.calibration import Estimate
from issl.planning.cost import FREE
from issl.planning.start import commands

pytestmark = pytest.mark.filterwarnings("ignore:.*PuLP 4:DeprecationWarning")
BETTER = "CISSL is better than SimCLR"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy_config(tmp_path)
    return tmp_path


def call(*arguments):
    done = CliRunner().invoke(issl, ["plan", *map(str, arguments)], standalone_mode=False)
    if done.exception:
        raise done.exception
    return done.output


def line(output):
    """The words of the first printed command after its name."""
    command = re.search(r"^snakemake \\\n(?:.*\\\n)+.*$", output, re.MULTILINE)[0]
    return runnable(shlex.split(command.replace("\\\n", " ")))  # as a shell continues a line


def runnable(words):
    """What follows the name of the program, without the project as the present folder."""
    return [PROJECT / "profiles/slurm" if word == "slurm" else word for word in words[1:]]


def trained(folder, arguments):
    """The folders of the runs that a dry run would pretrain."""
    output = snakemake(folder, "--dry-run", *arguments).stdout
    return set(re.findall(r"^ +output: results/(?:tiny/)?(runs/\S+)/encoder.safetensors", output, re.MULTILINE))


def paper(*experiments, costs=None, **limits):
    plan = catalog.load()["results"]
    return advise(plan, experiments or by_default(plan), Limits(**limits), costs)


class Costs(NamedTuple):
    """A hundredth of an hour for each epoch, and nothing for probes."""

    plan: catalog.Plan

    def pretraining(self, run, done):
        return Estimate(36 * self.plan.runs[run].epochs * (1 - done), 0.0)

    def featurizing(self, encoder, encoding):
        return FREE

    def probing(self, encoder, encoding, grid):
        return FREE


def test_a_budget_is_spent_and_its_line_runs_just_that(folder):
    output = call("table1_contrastive", "--budget", "1500epochs", "--seeds-up-to", 3, "--gpus", 2)
    assert "Costs are epochs" in output
    chosen = paper("table1_contrastive", budget="1500epochs", seeds_up_to=3).choice
    assert chosen.hours == 1500
    assert trained(folder, line(output)) == set(chosen.jobs)
    assert f"{len(chosen.jobs)} trainings, 1500 epochs" in output


def test_what_is_there_is_not_run_again(folder):
    """A finished training is free, and only its probes are asked for."""
    first = paper("table1_contrastive", budget="600epochs").choice
    done, left = first.jobs
    for name in ("encoder.safetensors", "history.csv", "run.json"):
        path = folder / "results" / done / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    again = paper("table1_contrastive", budget="300epochs")
    assert again.choice.jobs == (left,)
    assert again.choice.needs == first.needs
    [run, _] = commands(again.plan, again.experiments, again.choice, [], [])
    assert run.count(f"results/{done}/probes") == 1


@pytest.mark.slow
def test_the_line_repeats_the_config_and_gives_every_result_its_seeds(folder):
    """The preset tiny has a table with seeds of its own."""
    (folder / "more.yaml").write_text("defaults: {optim: {weight_decay: 1.0e-5}}\npresets: {tiny: {seeds: [4]}}\n")
    given = ("--configfile", folder / "more.yaml", "--config", "execution={device: cpu}")
    output = call("--preset", "tiny", "--budget", "300epochs", "--seeds-up-to", 3, *given)
    plan = catalog.load(overlays=[folder / "more.yaml"])["results/tiny"]
    chosen = advise(plan, by_default(plan), Limits(budget="300epochs", seeds_up_to=3)).choice
    assert {job[-2:] for job in chosen.jobs} == {"s4", "s1", "s2"}
    assert trained(folder, line(output)) == set(chosen.jobs)


def test_the_last_line_compares_what_is_there(folder):
    output = call("table1_contrastive", "--budget", "600epochs")
    last = shlex.split(output.splitlines()[-1])
    assert last[:4] == ["snakemake", "results/reproduction.md", "--profile", "slurm"]
    assert planned(folder, *runnable(last)).keys() == {"compare"}  # of what is there, and nothing is trained


def test_the_cheapest_runs_that_decide_a_claim():
    """One seed has a power below 0.9, and nothing but the two rows of the claim is needed."""
    found = paper(decide=(BETTER,), seeds_up_to=8)
    [trial] = [each for each in found.choice.trials if each.claim.endswith(BETTER)]
    fewer = [each for each in found.offer.trials if each.claim == trial.claim and each.seeds < trial.seeds]
    assert trial.power >= 0.9 > max(each.power for each in fewer)
    assert set(found.choice.jobs) == trial.needs


def test_hours_without_a_calibration_are_answered_in_epochs():
    """With the choices that there are, each worth more than the one before."""
    output = call("table1_contrastive", "--budget", "40h")
    assert output.startswith(
        "Nothing was measured on such a device, so hours are unknown; issl plan --measure measures."
    )
    found = outlook(catalog.load()["results"], ["table1_contrastive"], Limits())
    assert found["epochs"].is_monotonic_increasing and found["trainings"].is_monotonic_increasing
    for epochs in found["epochs"]:
        choice = paper("table1_contrastive", budget=f"{epochs}epochs").choice
        assert f" {epochs} " in output and choice.hours == epochs
    assert found["published numbers"].iloc[-1] == 5 and found["claims"].iloc[-1] == 4


def test_a_claim_out_of_reach_is_said_to_be(folder):
    """As one without a gap."""
    change = "experiments={table1_contrastive: {published: {values: {CISSL: 45.2}}}}"
    with pytest.raises(UserError, match=r"100 would give it 0\.\d\d, so seeds alone do not decide it"):
        call("table1_contrastive", "--decide", BETTER, "--config", change)


def test_the_json_is_the_choice(folder):
    found = json.loads(call("table1_contrastive", "--budget", "1500epochs", "--gpus", 2, "--json"))
    chosen = paper("table1_contrastive", budget="1500epochs", gpus=2)
    assert (found["unit"], found["cost"]) == ("epochs", 1500)
    assert {f"runs/{each['run']}/s{each['seed']}" for each in found["trainings"]} == {*chosen.choice.jobs}
    assert max(each["end"] for each in found["trainings"]) == 900
    assert [each["claim"] for each in found["claims"]] == [trial.claim for trial in chosen.choice.trials]
    assert shlex.split(found["commands"][0])[0] == "snakemake" and "\n" not in found["commands"][0]


def test_bars_that_would_read_alike_have_a_part_of_their_ids():
    names = paper("table1_distillation", budget="4000epochs").names()
    texts = [*names.values()]
    assert len(set(texts)) == len(texts) > 4


def test_a_short_plan_is_in_minutes():
    found = paper("table1_contrastive", budget="2d", costs=Costs(catalog.load()["results"]))
    short = replace(found, choice=found.choice._replace(hours=0.5))
    assert short.shown == ("minutes", 60) and ", 30 minutes. " in short.summary()
    assert "minutes left" in short.runs() and "hours left" in found.runs()


def test_hours_are_taken_from_a_calibration():
    found = paper("table1_contrastive", budget="2d", costs=Costs(catalog.load()["results"]))
    assert found.unit == "hours"
    assert found.choice.hours == sum(found.plan.runs[job.split("/")[1]].epochs / 100 for job in found.choice.jobs)
    assert 3 < found.choice.hours <= 48


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--budget", "40h", "--json"), r"--budget: must be in epochs, as in 6000epochs. Nothing was measured.*"),
        (("--budget", "10epochs"), r"--budget: 10 epochs is too little: the cheapest useful runs take 300"),
        (("--budget", "forty"), r"--budget forty: must be a time such as 40h, 90m or 2d, or else epochs.*"),
        (("--budget", "0h"), r"--budget 0h: must be a time.*"),
        (("--budget", "99epochs", "--slot", "1h"), r"--slot: must be in epochs, .*"),
        (
            ("--budget", "900epochs", "--decide", BETTER),
            r".*5 seeds give it a power of 0.8\d, not 0.9: it needs --seeds-up-to 6",
        ),
        (
            ("--budget", "900epochs", "--decide", BETTER, "--seeds-up-to", 9),
            r"--budget: 900 epochs is too little: to decide this takes \d+",
        ),
        (("--decide", "CISSL is beter than SimCLR"), f"--decide: unknown claim .*, did you mean '{BETTER}'.*"),
        (("--decide", "longer training helps"), r"--decide: several results claim this; say 'table1_contrastive: .*"),
        (
            ("fig7b", "--decide", "a lower log loss goes with a higher accuracy, CISSL"),
            r".*seeds cannot decide it, as it is about a rank correlation.*",
        ),
        (("fig7b", "--budget", "900epochs"), r"nothing is left to run: .*"),
        (("fig7d", "--budget", "900epochs"), r"unknown result 'fig7d', did you mean.*"),
        (("tiny", "fig7c", "--budget", "9h"), r"--budget and --decide plan for one preset, not for tiny and paper"),
        (("--chart", "drawn"), r"--chart: needs --budget or --decide"),
        (("--seeds-up-to", "3"), r"--seeds-up-to: needs --budget or --decide"),
        (("fig7c", "--gpus", "1"), r"--gpus: needs --budget or --decide"),
        (("--budget", "900epochs", "--preset", "tinny"), r"unknown preset 'tinny', did you mean 'tiny'\?"),
    ],
)
def test_a_mistake_is_one_line(arguments, complaint):
    with pytest.raises(UserError) as error:
        call(*arguments)
    assert re.fullmatch(complaint, str(error.value))


def test_no_gpus_are_refused():
    done = CliRunner().invoke(issl, ["plan", "--budget", "900epochs", "--gpus", "0"])
    assert done.exit_code == 2 and "--gpus" in done.output


def test_the_charts_are_drawn(folder):
    output = call("fig7a", "--budget", "600epochs", "--gpus", 2, "--chart", "drawn")
    assert "drawn/schedule.png" in output
    table = pd.read_csv(folder / "drawn/schedule.csv")
    assert set(table["gpu"]) == {1, 2} and table["end"].max() == 300 and set(table["unit"]) == {"epochs"}
    for name in ("schedule", "budget"):
        assert (folder / f"drawn/{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / f"drawn/{name}.pdf").read_bytes().startswith(b"%PDF")
