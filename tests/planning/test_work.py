"""The work of jobs, in closed form."""

from typing import Literal, NamedTuple

import pytest

from issl.planning import flops, work
from issl.planning.work import Sizes
from issl.spec.encoding import Encoding
from issl.spec.probe import ProbeGrid
from issl.spec.shape import Shape
from issl.spec.value import Value

SIZES = Sizes(train=100, test=20, classes=5)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(flops, "CACHE", tmp_path / "flops.json")


@pytest.mark.parametrize(("drop_last", "steps"), [(True, 3), (False, 4)])
def test_the_steps_of_a_pretraining(make_run, drop_last, steps):
    run = make_run(optim={"epochs": 7, "drop_last": drop_last})  # batches of 32
    job = work.pretraining(run, SIZES)
    assert (job.jobs, job.steps) == (1, 7 * steps)
    assert job.flops == 7 * steps * flops.of_step(run)


def test_runs_of_one_shape_differ_only_in_their_epochs_and_rates(make_run):
    shape = work.pretraining(make_run(), SIZES).shape
    assert work.pretraining(make_run(optim={"epochs": 9, "lr": 0.5}), SIZES).shape == shape
    assert work.pretraining(make_run(objective={"hidden": 64}), SIZES).shape != shape
    assert work.pretraining(make_run(optim={"batch_size": 16}), SIZES).shape != shape


def test_an_untrained_encoder_takes_no_step(make_run):
    assert work.pretraining(make_run("untrained"), SIZES).amounts == (1, 0, 0)


def test_encoding_passes_once_over_both_splits(make_run):
    encoding = Encoding(data=make_run().data, resize=16, crop=16, batch_size=30)
    encoder = Shape(arch="resnet10", width=8, dim=64)
    job = work.featurizing(encoder, encoding, SIZES)
    assert job.steps == 4 and job.flops == pytest.approx(120 * flops.of_image(encoder, 16))


@pytest.mark.parametrize(
    ("probe", "steps", "weights"),
    [
        ({"kind": "linear", "epochs": 10, "batch_size": 30}, 10 * 4, 64 * 5),
        ({"kind": "linear", "epochs": 10, "batch_size": 30, "fraction": 0.5}, 10 * 2, 64 * 5 / 2),
        ({"kind": "mlp", "hidden": 8, "epochs": 10, "batch_size": 100}, 10, 64 * 8 + 8 * 8 + 8 * 5),
    ],
)
def test_a_step_of_a_head_is_three_products(make_run, probe, steps, weights):
    encoding = Encoding(data=make_run().data, resize=16, crop=16)
    grid = ProbeGrid(probes=({**probe, "weight_decay": 1e-6}, {**probe, "weight_decay": 1e-4}))
    job = work.probing(grid, Shape(arch="resnet10", width=8, dim=64), encoding, SIZES)
    assert job.steps == 2 * steps
    assert job.flops == pytest.approx(2 * 10 * 100 * 6 * weights)


def test_fine_tuning_passes_thrice_through_the_encoder_for_each_label_and_epoch(make_run):
    """Forwards and backwards, for each probe; and once for each test image."""
    encoding, encoder = Encoding(data=make_run().data, resize=16, crop=16), Shape(arch="resnet10", width=8, dim=64)
    settings = {"kind": "fine_tuned", "epochs": 7, "batch_size": 8}
    grid = ProbeGrid(probes=({**settings, "fraction": 0.5}, {**settings, "fraction": 0.1}))
    job = work.probing(grid, encoder, encoding, SIZES)
    assert job.stage == "probe fine_tuned" and job.steps == 7 * 7 + 7 * 2
    passes = 3 * 7 * (50 + 10) + 2 * 20
    assert job.flops == pytest.approx(passes * flops.of_image(encoder, 16) + 7 * 60 * 6 * 64 * 5)


def test_a_kind_that_was_added_later_has_work(make_run):
    class Added(Value):
        kind: Literal["added"] = "added"

    class Grid(NamedTuple):
        probes: tuple[Added, ...] = (Added(),)
        kind: str = "added"

    encoding = Encoding(data=make_run().data, resize=16, crop=16)
    job = work.probing(Grid(), Shape(arch="resnet10", width=8, dim=64), encoding, SIZES)
    assert job.stage == "probe added" and job.flops == 100 * 6 * 64 * 5


@pytest.mark.parametrize("kind", ["logistic", "svm", "cached", "augmented", "fine_tuned", "knn"])
def test_every_kind_of_probe_has_work(make_run, kind):
    encoding = Encoding(data=make_run().data, resize=16, crop=16)
    grid = ProbeGrid(probes=({"kind": kind},))
    job = work.probing(grid, Shape(arch="resnet10", width=8, dim=64), encoding, SIZES)
    assert job.stage == f"probe {kind}" and min(job.amounts) > 0
