"""A job of probes: from features on disk to a score file."""

import csv
import json
import tracemalloc

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from issl.data.arrays import Content, read, write
from issl.errors import UserError
from issl.jobs import fingerprint
from issl.jobs.execution import Execution
from issl.probing import shards
from issl.probing.job import Job, probe
from issl.probing.scores import COLUMNS
from issl.probing.subsets import stratified
from issl.spec.data import Synthetic
from issl.spec.encoding import Encoding
from issl.spec.probe import MLP, SVM, Cached, Linear, Logistic, ProbeGrid, grid_id

CPU = Execution(device="cpu")
DATA = Synthetic(kind="synthetic")


def numbered(start, stop):
    """Images of one pixel, all different."""
    return np.arange(start, stop, dtype=">u4").view(np.uint8).reshape(-1, 1, 1, 4)[..., 1:]


def prepare(folder, z, labels, n_train):
    """Features, and a data set of four classes with such images: these probes read labels and splits only."""
    images = Content(
        labels=labels,
        splits={"train": n_train, "test": len(labels) - n_train},
        classes=list("abcd"),
        image_size=1,
        open=lambda: numbered,
        source={"name": "test"},
        parallel=False,
    )
    write(folder / "data", images, DATA)
    for start in range(0, len(z), 1200):
        shards.write(folder / "features", start, z[start : start + 1200])


def job(folder, execution=CPU):
    return Job("an encoder", Encoding(data=DATA), *(folder / n for n in ("features", "data", "s.csv")), 1, execution)


def rows_of(grid, folder, execution=CPU, seed=1):
    probe(grid, seed, job(folder, execution))
    with (folder / "s.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def prepared(tmp_path, blobs):
    """Folder with features and a prepared data set whose labels they fit."""
    prepare(tmp_path, blobs[0].numpy(), blobs[1], 200)
    return tmp_path


def test_scores_have_a_row_for_each_setting_and_metric_and_a_held_out_accuracy(prepared):
    grid = ProbeGrid(
        probes=(
            *(Linear(kind="linear", weight_decay=decay, epochs=5) for decay in (1e-4, 1e-1)),
            Linear(kind="linear", fraction=0.2, epochs=5),
        )
    )
    found = rows_of(grid, prepared)
    assert (prepared / "s.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    rows = {(float(r["weight_decay"]), float(r["fraction"]), r["metric"]): r for r in found}
    settings = (1e-4, 1.0), (1e-1, 1.0), (1e-6, 0.2)
    assert len(found) == len(rows) == 9
    assert set(rows) == {(*setting, name) for setting in settings for name in ("top-1", "top-5", "mean per class")}
    few = rows[1e-6, 0.2, "top-1"]
    assert few["holdout_acc"] == "" and few["n_labels"] == "40" and few["setting"] == "weight decay 1e-06, epochs 5"
    for metric in ("top-1", "mean per class"):
        assert all(0 < float(rows[decay, 1.0, metric]["holdout_acc"]) <= 1 for decay in (1e-4, 1e-1))
        assert all(0.25 < float(rows[*setting, metric]["test_acc"]) <= 1 for setting in settings)
    assert {(row["kind"], row["n_test"]) for row in found} == {("linear", "2000")}
    about = json.loads((prepared / "s.json").read_text())
    assert (about["grid"], about["seed"]) == (grid_id(grid), 1)
    assert about["spec"] == grid.model_dump(mode="json")
    assert about["data"] == read(prepared / "data").meta["sha256"]
    used = "issl.probing.heads", "issl.spec.probe:Linear", "issl.spec.data:Synthetic"
    assert about["code"] == fingerprint.current("probe", *used)
    assert [path.name for path in prepared.iterdir() if path.suffix == ".part"] == []


@pytest.mark.parametrize(
    ("probes", "settings", "precision"),
    [
        ([Linear(kind="linear", epochs=2)], 1, "bf16"),
        ([MLP(kind="mlp", hidden=8, epochs=2)], 1, "bf16"),
        ([Cached(kind="cached", epochs=2, lr=lr) for lr in (0.1, 0.2)], 2, "bf16"),
        ([Logistic(kind="logistic", draws=2)], 2, "32"),
        ([SVM(kind="svm", draws=2)], 2, "32"),
    ],
    ids=lambda value: value[0].kind if isinstance(value, list) else None,
)
def test_every_kind_on_features_writes_rows_of_one_form(prepared, probes, settings, precision):
    rows = rows_of(ProbeGrid(probes=probes), prepared, CPU.model_copy(update={"precision": "bf16"}))
    assert len(rows) == len({(row["setting"], row["metric"]) for row in rows}) == 3 * settings
    assert {(row["kind"], row["fraction"], row["n_labels"]) for row in rows} == {(probes[0].kind, "1.0", "200")}
    assert all(0.2 < float(row["test_acc"]) <= 1 for row in rows)
    assert json.loads((prepared / "s.json").read_text())["precision"] == precision, "the solvers have float32 alone"


def test_features_of_another_data_set_are_refused(prepared):
    shards.path(prepared / "features", 1200).unlink()
    with pytest.raises(UserError, match="1 shards are not all 2200 features"):
        rows_of(ProbeGrid(probes=(Linear(kind="linear"),)), prepared)
    assert not (prepared / "s.csv").exists()


# --- memory ---


class LargestTensor(TorchDispatchMode):
    """Bytes of the largest memories that operations of torch made, rather than looked at or wrote into."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        made = function(*arguments, **(named or {}))
        taken = {a.untyped_storage().data_ptr() for a in tree_leaves((arguments, named)) if isinstance(a, torch.Tensor)}
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in taken:
                self.sizes = sorted([*self.sizes, tensor.untyped_storage().nbytes()])[-2:]
        return made


@pytest.mark.parametrize("kind", ["linear", "cached"])
@pytest.mark.parametrize(("resident_gb", "copies"), [(0, 0), (1, 1)], ids=["from files", "resident"])
def test_the_features_are_not_copied_again(tmp_path, kind, resident_gb, copies):
    """Neither for all rows, nor for a subset, nor for the part held out; largest are batches and row numbers."""
    z = np.random.default_rng(0).normal(size=(40_000, 128)).astype(np.float16)  # 10 MB
    prepare(tmp_path, z, np.tile(np.arange(4), 10_000), 30_000)
    if kind == "linear":
        settings = [{"fraction": f, "weight_decay": decay} for f in (1.0, 0.8) for decay in (0.0, 1e-1)]
        grid = ProbeGrid(probes=tuple(Linear(kind="linear", epochs=1, **each) for each in settings))
    else:
        grid = ProbeGrid(probes=tuple(Cached(kind="cached", epochs=1, batch_size=512, lr=lr) for lr in (0.1, 0.2)))
    stratified(np.arange(4).repeat(9), 0.5, 1)  # imports scikit-learn, whose modules are larger than the features
    tracemalloc.start()  # sees what NumPy allocates; torch allocates past it
    try:
        with LargestTensor() as largest:
            rows_of(grid, tmp_path, CPU.model_copy(update={"resident_gb": resident_gb}))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert largest.sizes[2 - copies :] == [z.nbytes] * copies
    assert 512 * 128 * 4 <= largest.sizes[1 - copies] < z.nbytes / 4, "a batch in float32, or the spy saw nothing"
    assert peak < z.nbytes / 2


@pytest.mark.parametrize(
    ("key", "value"),
    [("data", {"images": "0" * 64, "labels": "0" * 64}), ("encoder", "another encoder"), ("encoding", {"crop": 8})],
)
def test_features_of_something_else_are_refused(prepared, key, value):
    about = {"encoder": "an encoder", "encoding": json.loads(Encoding(data=DATA).canonical())}
    about["data"] = read(prepared / "data").meta["sha256"]
    shards.begin(prepared / "features", about | {key: value})
    with pytest.raises(UserError, match=f"features of other {key} than these probes are for; delete this folder"):
        rows_of(ProbeGrid(probes=(Linear(kind="linear", epochs=1),)), prepared)
    (prepared / "features" / shards.ABOUT).write_text(json.dumps(about))
    assert rows_of(ProbeGrid(probes=(Linear(kind="linear", epochs=1),)), prepared)
