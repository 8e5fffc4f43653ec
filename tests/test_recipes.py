"""The recipes of docs/extending.md, carried out on a copy of the package."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from extending import blocks
from project import PROJECT


@pytest.fixture
def copy(tmp_path):
    """A copy of the package, and how Python runs code with it."""
    shutil.copytree(PROJECT / "issl", tmp_path / "issl", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "config.yaml", tmp_path)

    def run(*arguments):
        environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{PROJECT / 'tests'}:{PROJECT / 'tests/report'}"}
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return tmp_path, run


RUN = re.compile(r"^ *(\w+-z\d+-e\d+)-[0-9a-f]{8} ", re.MULTILINE)  # a line of `issl plan`


def insert(path, before, code):
    """Puts code before a line of a file."""
    text = path.read_text()
    assert before in text, before
    path.write_text(text.replace(before, f"{code}\n\n{before}", 1))


def replace(path, old, new):
    text = path.read_text()
    assert old in text, old
    path.write_text(text.replace(old, new, 1))


def test_the_recipe_for_a_method_plans_and_passes_its_own_test(copy):
    folder, run = copy
    module, settings, table, variants, test = blocks("Add a method")
    (folder / "issl/objectives/spectral.py").write_text(module)
    spec = folder / "issl/spec/objective.py"
    insert(spec, "Own = (", settings.strip() + "\n")
    replace(spec, " | Untrained\n)", " | Untrained\n    | Spectral\n)")
    statement, entry = table.strip().split("\n\n")
    registry = folder / "issl/objectives/__init__.py"
    replace(registry, "from issl.spec import objective", f"{statement}\nfrom issl.spec import objective")
    registry.write_text(f"{registry.read_text()}\n{entry}\n")
    [entry] = blocks("Add a method", "yaml")
    replace(folder / "config.yaml", "patches:  ", entry + "\npatches:  ")
    replace(folder / "config.yaml", "SimCLR:   {method: simclr}", "SimCLR:   {method: spectral}")
    assert "spectral-z512-e300" in run("-m", "issl", "plan", "table1_contrastive")
    (folder / "test_spectral.py").write_text(test)
    variant, method = variants.strip().splitlines()
    for name, before, lines in (
        ("objectives/test_contract.py", "REFERENCES = ", variant),
        ("jobs/test_distributed.py", "IMAGES = ", f"METHODS.clear()\n{method}"),  # the others take their time
    ):
        insert(Path(shutil.copy(PROJECT / "tests" / name, folder)), before, lines)
    files = ("test_spectral.py", "test_contract.py", "test_distributed.py")
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", *files, "-k", "spectral and not timm", "-m", "not slow")
    assert "11 passed" in done, done


LOADED = """
import sys, torch
from pathlib import Path
from issl import hub
from issl.data import prepare
from issl.jobs.execution import Execution
from issl.models import encoders
from issl.spec.run import RunSpec
from issl.training.pretrain import pretrain
data = {"kind": "synthetic", "classes": 4, "train_per_class": 8, "test_per_class": 4, "image_size": 16}
run = RunSpec.model_validate({
    "data": data, "objective": {"name": "byol", "hidden": 16, "out": 8},
    "encoder": {"arch": "convmixer", "dim": 64, "depth": 2},
    "optim": {"epochs": 1, "batch_size": 16, "warmup_epochs": 0},
})
prepare(run.data, Path("d"))
pretrain(run, 1, Path("d"), Path("r"), Execution(device="cpu", progress=False))
encoder = hub.load("r")
z, maps = encoder.with_maps(torch.randn(2, 3, 16, 16))
assert type(encoder).__module__ == "issl.models.convmixer" and encoder.dim == 64
assert maps.shape == (2, 64, 8, 8) and z.shape == (2, 64), (maps.shape, z.shape)
"""


def test_the_recipe_for_an_encoder_plans_and_trains_an_epoch(copy):
    folder, run = copy
    module, settings = blocks("Add an encoder")
    (folder / "issl/models/convmixer.py").write_text(module)
    spec = folder / "issl/spec/encoder.py"
    declared, table = re.split(r"(?=^OWN: )", settings, flags=re.MULTILINE)
    spec.write_text(re.sub(r"^OWN: .*$", table.strip(), spec.read_text(), flags=re.M))
    insert(spec, "OWN: ", declared.strip() + "\n")
    [row] = blocks("Add an encoder", "yaml")
    table = "\n    probes: [{weight_decay: [1.0e-4, 1.0e-5, 1.0e-6]}]\n    table: {caption: A ConvMixer.}\n"
    (folder / "mine.yaml").write_text(f"experiments:\n  mixer:\n    rows:\n{row.rstrip()}{table}")
    assert RUN.findall(run("-m", "issl", "plan", "mixer", "--configfile", "mine.yaml")) == ["simclr-z64-e300"]
    assert "convmixer, 64 px" in (folder / "results/.planning/encoders.json").read_text()
    run("-c", LOADED)


MEANS = """
import numpy as np, torch
from sklearn.neighbors import NearestCentroid
from issl.probing import kinds
from issl.probing.task import Task
from issl.spec.probe import ProbeGrid
draws = np.random.default_rng(0)
labels = np.tile(np.arange(5), 60)
z = (3 * draws.normal(size=(5, 8))[labels] + 4 * draws.normal(size=(300, 8))).astype(np.float32)
class Held:
    dim = 8
    place = staticmethod(lambda rows: rows)
    def __call__(self, rows):
        return torch.from_numpy(z)[rows]
train, test = np.arange(200), np.arange(200, 300)
task = Task(0, labels, train, test, 5, torch.device("cpu"), "32", features=Held())
[score] = kinds.evaluate("means")(ProbeGrid(probes=({"kind": "means"},)), task)
expected = NearestCentroid().fit(z[train], labels[train]).score(z[test], labels[test])
assert 0.4 < expected < 0.95 and abs(score.test["top-1"] - expected) < 1e-9, (score, expected)
"""


def test_the_recipe_for_a_kind_of_probe_scores_as_scikit_learn_does(copy):
    folder, run = copy
    module, settings = blocks("Add a kind of probe")
    (folder / "issl/probing/means.py").write_text(module)
    spec = folder / "issl/spec/probe.py"
    insert(spec, "Own = ", settings.strip() + "\n")
    replace(spec, "SVM | KNN\n", "SVM | KNN | Means\n")
    replace(folder / "issl/probing/kinds.py", "KINDS = {", 'KINDS = {\n    "means": "issl.probing.means",')
    run("-c", MEANS)
    config = folder / "config.yaml"
    replace(config, "probes: [{weight_decay:", "probes: [{kind: means}, {weight_decay:")
    replace(config, 'linear probe."}', 'linear probe.", columns: [probe]}')
    # The published numbers of that table speak of one column.
    without = re.sub(
        r"^    published:\n      \{source: \"README.*?\}\}\n", "", config.read_text(), count=1, flags=re.M | re.S
    )
    config.write_text(without)
    plan = "from issl.config.plan import load; print(*load('config.yaml')['results'].scores('table1_contrastive'))"
    assert "/means-" in run("-c", plan)


NPZ = """
import numpy as np
draws = np.random.default_rng(0)
def images(n):
    labels = np.arange(n) % 4
    shades = (60 * labels)[:, None, None, None] + draws.integers(0, 60, (n, 16, 16, 3))
    return shades.astype(np.uint8), labels
(x_train, y_train), (x_test, y_test) = images(64), images(24)
np.savez("data/digits.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
"""
READ = """
import numpy as np
from issl.data.datasets import READERS
from issl.errors import UserError
from issl.spec.data import Npz
spec = Npz(kind="npz", name="digits", image_size=16, path="data/digits.npz")
content, file = READERS["npz"](spec), np.load("data/digits.npz")
assert content.splits == {"train": 64, "test": 24} and content.classes == list("0123")
assert np.array_equal(content.open()(60, 70), np.concatenate([file["x_train"][60:], file["x_test"][:6]]))
for bad in (spec.model_copy(update={"image_size": 8}), spec.model_copy(update={"path": "nowhere.npz"})):
    try:
        READERS["npz"](bad)
    except UserError as error:
        assert "image_size is 8" in str(error) or "nowhere.npz: expected an .npz file" in str(error)
    else:
        raise AssertionError(bad)
"""
ONE_EPOCH = """
import json
from issl.config.plan import load
plan = load()["results/digits"]
row = plan.rows["table1_contrastive"][0]
run = row.run.model_copy(update={"optim": row.run.optim.model_copy(update={"epochs": 1, "warmup_epochs": 0})})
print(json.dumps([row.run.data.canonical(), plan.place(row.run.data), run.canonical(), row.encoding.canonical(),
                  next(iter(row.probes.values())).canonical()]))
"""


def add_a_data_set(folder):
    """The recipe for a data set, from its module to its entry in the config."""
    module, settings, registry = blocks("Add a data set")
    (folder / "issl/data/datasets/npz.py").write_text(module)
    spec = folder / "issl/spec/data.py"
    declared, union = re.split(r"(?=^Own = )", settings, flags=re.MULTILINE)
    spec.write_text(re.sub(r"^Own = .*$", union.strip(), spec.read_text(), flags=re.M))
    insert(spec, "Own = ", declared.strip() + "\n")
    statement, entry = registry.strip().split("\n\n")
    readers = folder / "issl/data/datasets/__init__.py"
    [old] = re.findall(r"^from issl.data.datasets import .*$", readers.read_text(), re.MULTILINE)
    replace(readers, old, statement)
    readers.write_text(f"{readers.read_text()}\n{entry}\n")
    [line] = blocks("Add a data set", "yaml")
    replace(folder / "config.yaml", "\ndefaults:\n", f"{line}\ndefaults:\n")


@pytest.mark.slow
def test_the_recipes_for_a_data_set_and_a_preset_plan_and_train_an_epoch(copy):
    """With the data set as the default of a preset, from its archive to scores."""
    folder, run = copy
    add_a_data_set(folder)
    [preset] = blocks("Add a preset", "yaml")
    (folder / "presets").mkdir()
    (folder / "presets/digits.yaml").write_text(preset)
    (folder / "data").mkdir()
    run("-c", NPZ)
    run("-c", READ)
    planned = RUN.findall(run("-m", "issl", "plan", "table1_contrastive", "--preset", "digits"))
    assert planned.count("cissl-z256-e40") == 2 and len(planned) == 5
    data, place, spec, encoding, probes = json.loads(run("-c", ONE_EPOCH).splitlines()[-1])
    cpu = ("--settings", '{"device": "cpu", "progress": false}')
    where = ("--place", place, *cpu)
    run("-m", "issl", "prepare", "--spec", data, "--out", "d", *where)
    run("-m", "issl", "pretrain", "--spec", spec, "--seed", "1", "--data", "d", "--out", "r", *where)
    what = ("--encoder", "r", "--spec", encoding, "--data", "d", *where)
    run("-m", "issl", "featurize", *what, "--out", "z")
    run("-m", "issl", "probe", *what, "--probes", probes, "--seed", "1", "--features", "z", "--out", "s.csv")
    [header, *scores] = (folder / "s.csv").read_text().splitlines()
    accuracy = header.split(",").index("test_acc")
    assert len(scores) == 9 and all(0 <= float(line.split(",")[accuracy]) <= 1 for line in scores)


def test_a_data_set_added_by_recipe_can_be_the_default_of_every_experiment(copy):
    """Nothing asks a kind of data for what only the kinds here have."""
    folder, run = copy
    add_a_data_set(folder)
    replace(folder / "config.yaml", "  data: tinyimagenet\n", "  data: digits\n")
    assert len(RUN.findall(run("-m", "issl", "plan"))) == 22


FIGURE = """
from pathlib import Path
from tidy import write_scores
from issl.config.display import figure_of
from issl.config.plan import load
from issl.report import figures, results
plan = load(overlays=["mine.yaml"])["results"]
rows = plan.rows_for("my_widths")
history = Path("history.csv")
history.write_text("epoch,test_log_loss\\n1,2.0\\n")
files = []
for nth, row in enumerate(rows):
    files.append(Path(f"{nth}.csv"))
    for decay in (1e-4, 1e-5, 1e-6):
        write_scores(files[-1], (f"wd {decay}", 0.4 + nth / 50, 0.3), weight_decay=decay)
table = results.aggregate(rows, files, [history] * len(rows))
figure = figures.draw(table, figure_of(plan.display("my_widths")))
figures.save(figure, Path("w.pdf"), Path("w.png"))
[line] = [line for line in figure.axes[0].lines if not line.get_label().startswith("_")]
print(line.get_label(), *line.get_xdata(), *line.get_ydata())
"""


def test_the_recipe_for_a_figure_is_planned_and_drawn(copy):
    folder, run = copy
    [experiment] = blocks("Add a figure or a table", "yaml")
    (folder / "mine.yaml").write_text(experiment)
    planned = run("-m", "issl", "plan", "my_widths", "--configfile", "mine.yaml")
    assert RUN.findall(planned) == ["cissl-z512-e300", "cissl-z2048-e300"]
    label, *numbers = run("-c", FIGURE).split()
    assert label == "CISSL" and [round(float(number), 9) for number in numbers] == [512, 2048, 40, 42]
    assert (folder / "w.pdf").stat().st_size > 1000
