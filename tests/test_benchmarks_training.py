"""The contenders of the training benchmarks run on any device, and do the same work. No times are tested."""

import math

import numpy as np
import pytest
import torch

from benchmarks import curves, measure, memory, pretraining, probing, scaling, stages, transfer
from benchmarks.measure import Row
from issl.jobs.execution import Execution
from issl.probing import heads
from issl.spec.probe import Linear, ProbeGrid
from issl.training import pretrain
from issl.views import loader

CPU = Execution(device="cpu", precision="32", progress=False)


# --- pretraining -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", pretraining.METHODS)
def test_the_training_benchmarks_run_on_any_device(make_run, method):
    rows = [pretraining.PIL_GPU, pretraining.CEILING_GPU]
    pil, ceiling = pretraining.beside_pil_and_ceiling(rows, make_run(method), CPU, 1, 1, 1, rounds=1)
    assert min(pil.ours, pil.peer, ceiling.peer) > 0
    assert pil.ours == ceiling.ours
    assert pil.ratio == pytest.approx(pil.ours / pil.peer)
    assert pil.n == ceiling.n == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU would be measured")
def test_gpu_rows_without_a_gpu_are_reported_as_not_measured():
    rows = pretraining.gpu(1)
    assert {row.name for row in rows} < set(pretraining.NAMES)
    assert {row.not_measured for row in rows} == {"no CUDA device here"}


@pytest.mark.parametrize("method", ["simclr", "cissl", "dissl"])
def test_the_ceiling_takes_the_step_of_the_real_loop(synthetic, make_run, tmp_path, monkeypatch, method):
    """The same gradients and the same parameters after the first step of training on the same views."""
    run = make_run(method, optim={"epochs": 1, "warmup_epochs": 0, "batch_size": 64})
    seen = spy_on_first_step(monkeypatch)
    pretrain.pretrain(run, pretraining.SEED, synthetic, tmp_path, CPU)

    ceiling = pretraining.Method(run, torch.device("cpu"), "32")
    ceiling.optimizer.param_groups[0]["lr"] = seen["rate"]
    ceiling.backward(seen["views"])
    assert seen["rate"] > 0
    for ours, theirs in zip(ceiling.parameters, seen["gradients"], strict=True):
        torch.testing.assert_close(ours.grad, theirs)

    ceiling = pretraining.Method(run, torch.device("cpu"), "32")
    ceiling.optimizer.param_groups[0]["lr"] = seen["rate"]
    ceiling.step(seen["views"])
    for ours, theirs in zip(ceiling.parameters, seen["parameters"], strict=True):
        # Adam's first step is a sign where a gradient is not tiny, and noise where it is: compare up to one step.
        assert (ours - theirs).abs().mean() < 0.02 * seen["rate"]


def spy_on_first_step(monkeypatch):
    """Keeps what the first step of the real loop saw and made."""
    seen = {}
    module = pretrain.Pretraining
    views, clip, end = loader.ResidentViews.views, module.configure_gradient_clipping, module.on_train_batch_end

    def trained(self):
        return [*self.encoder.parameters(), *self.objective.parameters()]

    def keep_views(self, images, number, purpose, *position):
        made = views(self, images, number, purpose, *position)
        if purpose == "augment":
            seen.setdefault("views", made.clone(memory_format=torch.preserve_format))
        return made

    def keep_gradients(self, optimizer, **arguments):
        seen.setdefault("gradients", [parameter.grad.clone() for parameter in trained(self)])
        seen.setdefault("rate", optimizer.param_groups[0]["lr"])
        clip(self, optimizer, **arguments)

    def keep_parameters(self, *arguments):
        seen.setdefault("parameters", [parameter.detach().clone() for parameter in trained(self)])
        end(self, *arguments)

    monkeypatch.setattr(loader.ResidentViews, "views", keep_views)
    monkeypatch.setattr(module, "configure_gradient_clipping", keep_gradients)
    monkeypatch.setattr(module, "on_train_batch_end", keep_parameters)
    return seen


# --- probes ----------------------------------------------------------------------------------------------------------


def test_probes_side_by_side_and_one_by_one_agree(tmp_path):
    task = probing.on_device(tmp_path, *probing.drawn(60, 8, 4, noise=0.1), 40, torch.device("cpu"), "32")
    probes = [
        Linear(kind="linear", weight_decay=decay, fraction=part, epochs=2, holdout=0.5)
        for part in (1, 0.5)
        for decay in (1e-4, 1e-6)
    ]
    row = probing.beside_single_probes(probing.GRID, probes, task, least=1, rounds=1)
    assert row.ours > 0 and row.peer > 0
    assert len(row.details["accuracies"]) == 4
    assert row.details["largest_difference_in_points"] <= probing.ALIKE
    expected = [score.test["top-1"] for score in heads.evaluate(ProbeGrid(probes=probes), task)]
    assert row.details["accuracies"] == pytest.approx([100 * accuracy for accuracy in expected])


def test_probes_that_disagree_are_an_error(monkeypatch, tmp_path):
    accuracies = iter([[{"top-1": 0.5}, {"top-1": 0.5}], [{"top-1": 0.5}], [{"top-1": 0.6}]] * 2)
    monkeypatch.setattr(probing, "fit_and_score", lambda *_: next(accuracies))
    task = probing.on_device(tmp_path, *probing.drawn(16, 4, 2, noise=0.1), 8, torch.device("cpu"), "32")
    probes = [Linear(kind="linear", weight_decay=decay) for decay in (1e-4, 1e-6)]
    with pytest.raises(RuntimeError, match=r"differ by 10\.00 points"):
        probing.beside_single_probes(probing.GRID, probes, task, least=1, rounds=1)


@pytest.mark.slow
def test_a_job_for_all_probes_and_a_job_for_each_are_timed():
    probes = [Linear(kind="linear", weight_decay=decay, epochs=1) for decay in (1e-4, 1e-6)]
    seconds = probing.jobs(probes, *probing.drawn(60, 8, 4, noise=0.1), 40, 4)
    assert seconds["probes"] == 2 and min(seconds["one_job"], seconds["a_job_a_probe"]) > 0


# --- transfer --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["logistic", "svm"])
def test_the_classifiers_of_transfer_end_where_those_of_scikit_learn_do(kind):
    threads = torch.get_num_threads()
    core = transfer.on_one_core(kind, 1, n=120, growth=(60, 120))
    cores = transfer.on_all_cores(kind, 120, 64, "large")
    assert torch.get_num_threads() == threads
    for row in (core, cores):
        assert row.name in (f"transfer_{kind}", "large") and row.ratio == pytest.approx(row.peer / row.ours)
        assert set(row.details["test_accuracies"]) >= {"ours", "scikit-learn"}
    assert len(core.details["figures"]) == 2


def test_a_larger_objective_than_that_of_scikit_learn_is_an_error(monkeypatch):
    monkeypatch.setattr(transfer, "ALIKE", -1)
    with pytest.raises(RuntimeError, match="transfer, svm: objectives above"):
        transfer.on_all_cores("svm", 60, 16, "large")


# --- scaling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_the_slope_of_a_power_law_is_its_exponent(power):
    sizes = np.array([64, 128, 1024])
    assert measure.slope(sizes, 3 * sizes**power) == pytest.approx(power, abs=1e-12)


@pytest.mark.parametrize(("power", "reached"), [(0.5, True), (1.0, True), (1.5, False)])
def test_a_cost_may_not_grow_faster_than_its_work(power, reached):
    turns = {size: lambda size=size: 0.1 * size**power for size in (10, 100, 1000)}
    row = measure.grown(scaling.BATCH, turns, rounds=1)
    assert row.reached is reached
    assert row.ours == pytest.approx(100 ** (power - 1))
    assert row.details["sizes"] == [10, 100, 1000]


def test_costs_are_positive(synthetic, make_run):
    run = make_run("cissl", optim={"epochs": 2})
    assert scaling.step(run, synthetic, CPU) > 0
    assert scaling.probe_heads(2, 200, 4, 1, CPU) > 0
    assert scaling.epoch(run, 128, 2, CPU) > 0


def test_costs_of_the_other_stages_are_positive(tmp_path):
    assert min(stages.prepare(tmp_path, n_images) for n_images in (40, 60)) > 0
    assert stages.encoded(tmp_path / "encoded", 40, CPU)() > 0
    assert stages.summarise(tmp_path, 3) > 0


def test_the_plot_shows_the_measured_rows(tmp_path):
    curve = {"sizes": [1, 10, 100], "figures": [1.0, 8.0, 90.0], "slope": 0.98, "unit": "s"}
    measured = Row(scaling.HEADS.name, "ratio", "", "", details=curve)
    missing = Row(scaling.DIM.name, "ratio", "", "", not_measured="no time")
    curves.plot([measured.record(), missing.record()], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_memory_peaks_belong_to_the_measured_process(make_run, tmp_path):
    ballast = np.ones(250_000_000)  # 2 GB here must not count there
    dissl = memory.of_dissl(make_run("dissl", optim={"epochs": 1, "warmup_epochs": 0}))
    features = memory.of_features(tmp_path, 400, 200, 16, 20)
    del ballast
    assert 0.1 < dissl.details["resident_gb"] < 2
    assert 0.1 < features.details["import_gb"] <= features.ours < 2
    assert features.details["features_gb"] == pytest.approx(400 * 16 * 2 / 1e9)
    assert math.isfinite(dissl.ours)
