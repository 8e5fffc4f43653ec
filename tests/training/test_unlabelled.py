"""STL-10 with its unlabelled split: encoders train on all images, and only those with a label are ever classified."""

import csv

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torchvision import datasets

from issl import data
from issl.data.arrays import read
from issl.jobs.execution import Execution
from issl.planning import observed
from issl.planning.work import Sizes
from issl.probing import shards
from issl.probing.featurize import featurize
from issl.probing.job import Job, probe
from issl.spec.data import Torchvision
from issl.spec.encoding import Encoding
from issl.spec.probe import KNN, Linear, ProbeGrid
from issl.spec.run import RunSpec
from issl.training import online
from issl.training.pretrain import pretrain

CPU = Execution(device="cpu", precision="32", progress=False)
COUNTS = {"train": 12, "test": 6, "unlabeled": 20}
NAMES = ["airplane", "bird", "car"]


@pytest.fixture
def stl10(tmp_path, monkeypatch):
    """Its files, with three classes; the pixels of each split as the files have them."""
    folder, draws, made = tmp_path / "stl10_binary", np.random.default_rng(0), {}
    folder.mkdir()
    (folder / "class_names.txt").write_text("\n".join(NAMES))
    for split, count in COUNTS.items():
        made[split] = draws.integers(0, 256, (count, 96, 96, 3), np.uint8)
        (folder / f"{split}_X.bin").write_bytes(made[split].transpose(0, 3, 2, 1).tobytes())  # columns before rows
        if split != "unlabeled":
            (folder / f"{split}_y.bin").write_bytes((np.arange(count) % 3 + 1).astype(np.uint8).tobytes())
    monkeypatch.setattr(datasets.STL10, "_check_integrity", lambda self: True)  # of the real files, by checksum
    return tmp_path, made


def spec(root, size=96, unlabelled=True):
    split = {"unlabelled": {"split": "unlabeled"}} if unlabelled else {}
    return Torchvision(kind="torchvision", name="stl10", image_size=size, split=split, path=str(root))


def run_on(images, objective, **optim):
    encoder = {"arch": "resnet10", "width": 8, "dim": 64}
    optim = {"epochs": 2, "batch_size": 8, "warmup_epochs": 0} | optim
    return RunSpec.model_validate({"data": images, "objective": objective, "encoder": encoder, "optim": optim})


def test_unlabelled_images_follow_the_labelled_ones(stl10):
    root, made = stl10
    arrays = data.prepare(spec(root), root / "data", progress=False)
    assert arrays.meta["splits"] == {"train": 12, "test": 6, "unlabelled": 20}
    assert np.array_equal(arrays.images, np.concatenate([*made.values()]))
    assert arrays.labels.tolist() == [*range(3)] * 6 + [-1] * 20
    assert arrays.classes == NAMES
    assert (arrays.n_pretraining, arrays.n_labelled) == (32, 18)
    assert np.array_equal(
        np.concatenate([arrays.images[rows] for rows in arrays.pretraining]),
        np.concatenate([made["train"], made["unlabeled"]]),
    )


def test_without_the_unlabelled_split_it_is_another_data_set(stl10):
    root, _ = stl10
    arrays = data.prepare(spec(root, unlabelled=False), root / "data", progress=False)
    assert arrays.meta["splits"] == {"train": 12, "test": 6} and arrays.n_pretraining == 12


def test_the_encoder_trains_on_all_of_them_and_probes_see_the_labelled_ones(stl10):
    root, _ = stl10
    images = spec(root, 16)
    data.prepare(images, root / "data", progress=False)
    run = run_on(images, {"name": "simclr"})
    pretrain(run, 1, root / "data", root / "run", CPU)
    with (root / "run/history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(0 <= float(row["online_acc"]) <= 1 and float(row["online_loss"]) > 0 for row in rows)

    encoding = Encoding(data=images, resize=16, crop=16, batch_size=8)
    featurize(str(root / "run"), encoding, root / "data", root / "features", 0, CPU)
    assert shards.Features(root / "features", 18, torch.device("cpu"), 1).dim == 64
    for probes in ((Linear(kind="linear", epochs=2, holdout=0.25),), (KNN(kind="knn", k=3, holdout=0.25),)):
        out = root / f"{probes[0].kind}.csv"
        job = Job(str(root / "run"), encoding, root / "features", root / "data", out, 1, CPU)
        probe(ProbeGrid(probes=probes), 1, job)
        with out.open() as file:
            assert {row["n_test"] for row in csv.DictReader(file)} == {"6"}


def test_a_batch_may_have_as_many_images_as_there_are_with_the_unlabelled_ones(stl10):
    root, _ = stl10
    images = spec(root, 16)
    data.prepare(images, root / "data", progress=False)
    pretrain(run_on(images, {"name": "simclr"}, batch_size=32, epochs=1), 1, root / "data", root / "run", CPU)
    assert (root / "run/encoder.safetensors").exists()


def test_a_plan_counts_unlabelled_images_for_pretraining_alone(stl10):
    root, _ = stl10
    images = spec(root, 16)
    data.prepare(images, root / "data" / f"{observed.data_id(images)}", progress=False)
    sizes = observed.sizes(root, images)
    assert sizes == Sizes(12, 6, 3, 20)
    run = run_on(images, {"name": "simclr"}, drop_last=True)
    assert observed.work.pretraining(run, sizes).steps == 2 * (32 // 8)


def test_a_supervised_encoder_is_refused(stl10):
    with pytest.raises(ValidationError, match="supervised needs a label for every image: leave `unlabelled` out"):
        run_on(spec(stl10[0]), {"name": "supervised", "classes": 3})
    assert run_on(spec(stl10[0], unlabelled=False), {"name": "supervised", "classes": 3})


def test_the_online_evaluation_of_an_epoch_is_that_of_its_labelled_images():
    torch.manual_seed(0)
    logits, labels = torch.randn(40, 5, dtype=torch.float64), torch.randint(0, 5, (40,))
    labels[torch.randperm(40)[:30]] = -1
    labels[:8] = -1  # a batch without any
    share = (labels >= 0).double().mean().item()
    batches = [online.scores(*batch, share) for batch in zip(logits.split(8), labels.split(8))]
    loss, accuracy = (torch.stack([batch[place] for batch in batches]).mean() for place in (0, 1))
    known = labels >= 0
    assert loss.item() == pytest.approx(F.cross_entropy(logits[known], labels[known]).item())
    assert accuracy.item() == pytest.approx((logits[known].argmax(1) == labels[known]).double().mean().item())


def test_the_online_evaluation_learns_nothing_from_unlabelled_images():
    torch.manual_seed(0)
    logits = torch.randn(6, 5, requires_grad=True)
    loss, _ = online.scores(logits, torch.tensor([2, -1, 0, -1, -1, 4]), 0.5)
    loss.backward()
    assert logits.grad.abs().sum(1).gt(0).tolist() == [True, False, True, False, False, True]


def test_labelled_images_alone_are_averaged_as_ever():
    torch.manual_seed(0)
    logits, labels = torch.randn(7, 5), torch.randint(0, 5, (7,))
    loss, accuracy = online.scores(logits, labels, 1.0)
    assert torch.equal(loss, F.cross_entropy(logits, labels))
    assert torch.equal(accuracy, (logits.argmax(1) == labels).float().mean())


def test_rows_are_read_back(stl10):
    root, _ = stl10
    data.prepare(spec(root, 16), root / "data", progress=False)
    assert read(root / "data", spec(root, 16)).split("unlabelled") == slice(18, 38)
