"""Exported runs: what is written loads again, and the card says what is on the disk."""

import csv
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from project import PROJECT
from safetensors.torch import load_file, save_file
from tidy import write_scores

from issl import __version__, cli, hub
from issl.errors import UserError
from issl.jobs.execution import Execution
from issl.probing.featurize import featurize
from issl.probing.job import Job, probe
from issl.report.export import export
from issl.report.results import SCORES
from issl.spec.data import data_id
from issl.spec.encoding import Encoding, encoding_id
from issl.spec.probe import ProbeGrid, grid_id
from issl.spec.run import RunSpec, run_id
from issl.training.pretrain import pretrain

CPU = Execution(device="cpu", progress=False)
IMAGE = Image.fromarray(np.random.default_rng(0).integers(256, size=(20, 24, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, synthetic):
    """Folder and settings of a run that a probe has scored."""
    run = RunSpec.model_validate(
        {
            "data": json.loads((synthetic / "meta.json").read_text())["spec"],
            "objective": {"name": "dissl", "hidden": 32, "bottleneck": 16, "classes": 64},
            "encoder": {"arch": "resnet10", "width": 8, "head": "expand", "dim": 128, "bottleneck": 16},
            "optim": {"epochs": 2, "batch_size": 32, "warmup_epochs": 1},
        }
    )
    folder = tmp_path_factory.mktemp("finished") / "s3"
    pretrain(run, 3, synthetic, folder, CPU)
    encoding = Encoding(data=run.data, resize=16, crop=16)
    features = folder / "features" / encoding_id(encoding)
    featurize(str(folder), encoding, synthetic, features, 0, CPU)
    grid = ProbeGrid.model_validate({"probes": [{"kind": "linear", "epochs": 3, "batch_size": 16}]})
    scores = folder / "probes" / encoding_id(encoding) / f"{grid_id(grid)}-s3.csv"
    probe(grid, 3, Job(str(folder), encoding, features, synthetic, scores, 1, CPU))
    return folder, run


@pytest.fixture
def changed(finished, tmp_path):
    """A copy of that folder, to be damaged."""
    folder = tmp_path / "s3"
    for path in finished[0].rglob("*"):
        if path.suffix in (".json", ".csv", ".safetensors") and ".made" not in path.parts:
            copy = folder / path.relative_to(finished[0])
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return folder


def refusal(run, out):
    before = sorted(out.parent.rglob("*"))
    with pytest.raises(UserError) as error:
        export(run, out)
    left = [path for path in sorted(out.parent.rglob("*")) if path not in before and path.is_file()]
    assert left == [], "something was written"
    return str(error.value)


@pytest.mark.parametrize("name", ["mine", "mine.safetensors"])
def test_an_exported_run_loads_as_the_run_itself(finished, tmp_path, name):
    file, card = export(finished[0], tmp_path / name)
    names = {
        "mine": ("mine/encoder.safetensors", "mine/README.md"),
        "mine.safetensors": ("mine.safetensors", "mine.md"),
    }
    assert (file, card) == tuple(tmp_path / each for each in names[name])
    theirs, ours = hub.load(finished[0]), hub.load(tmp_path / name)
    assert ours.dim == 128 and not ours.training
    with torch.no_grad():
        assert torch.equal(ours(ours.preprocess(IMAGE)[None]), theirs(theirs.preprocess(IMAGE)[None]))


FRESH = """
import sys, torch
from PIL import Image
from issl import hub
encoder = hub.load(sys.argv[1])
image = Image.frombytes("RGB", (24, 20), open(sys.argv[2], "rb").read())
with torch.no_grad():
    torch.save((encoder(encoder.preprocess(image)[None]), encoder.dim, encoder.training), sys.argv[3])
"""


def test_an_exported_encoder_of_timm_loads_in_another_process(synthetic, tmp_path):
    timm = pytest.importorskip("timm")
    run = RunSpec.model_validate(
        {
            "data": json.loads((synthetic / "meta.json").read_text())["spec"],
            "objective": {"name": "byol", "hidden": 32, "out": 16},
            "encoder": {"arch": "timm/test_vit", "dim": 64, "patch": 4},
            "optim": {"epochs": 1, "batch_size": 32, "warmup_epochs": 0},
        }
    )
    pretrain(run, 1, synthetic, tmp_path / "s1", CPU)
    encoding = Encoding(data=run.data, resize=16, crop=16)
    for layer in ("output", "trunk"):
        path = tmp_path / layer
        featurize(str(tmp_path / "s1"), encoding.model_copy(update={"layer": layer}), synthetic, path, 0, CPU)
    file, card = export(tmp_path / "s1", tmp_path / "mine")
    (tmp_path / "image").write_bytes(IMAGE.tobytes())
    command = [sys.executable, "-c", FRESH, str(tmp_path / "mine"), str(tmp_path / "image"), str(tmp_path / "z.pt")]
    subprocess.run(command, check=True, cwd=PROJECT)
    z, dim, training = torch.load(tmp_path / "z.pt")
    encoder = hub.load(tmp_path / "s1")
    with torch.no_grad():
        expected = encoder(encoder.preprocess(IMAGE)[None])
    assert torch.equal(z, expected) and dim == 64 and not training
    theirs = timm.create_model("test_vit", num_classes=0, img_size=16, patch_size=4).eval()
    theirs.load_state_dict({name.removeprefix("trunk."): tensor for name, tensor in load_file(file).items()})
    with torch.no_grad():
        torch.testing.assert_close(theirs(encoder.preprocess(IMAGE)[None]), z, rtol=1e-4, atol=1e-5)
    text = card.read_text()
    assert "timm/test_vit pretrained without labels by BYOL for 1 epochs on synthetic" in text
    assert f"timm {timm.__version__}" in text and "spatial average" not in text
    assert RunSpec.model_validate_json(block(text, "json")) == run


def rows(card):
    """Rows of the card's tables, as lists of cells."""
    lines = [line for line in card.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def block(card, language):
    return re.search(rf"```{language}\n(.*?)```", card, re.DOTALL)[1]


def test_the_card_describes_the_run(finished, tmp_path):
    folder, run = finished
    file, card = export(folder, tmp_path / "mine")
    text = card.read_text()
    record = json.loads((folder / "run.json").read_text())
    assert text.startswith(f"# {run_id(run)}, seed 3\n")
    assert "ResNet-10 pretrained without labels by DISSL for 2 epochs on synthetic" in text
    assert RunSpec.model_validate_json(block(text, "json")) == run
    facts = {cells[0]: cells[1] for cells in rows(text) if len(cells) == 2}
    assert facts["file"] == f"`encoder.safetensors`, SHA-256 {hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert facts["data"].startswith(data_id(run.data)) and record["data"]["images"] in facts["data"]
    assert facts["trained on"].startswith("CPU")
    assert f"torch {torch.__version__.partition('+')[0]}" in facts["versions"]
    assert facts["licence"].startswith(f"MIT, as issl {__version__}")
    assert record["git"] is None or record["git"]["commit"] in facts["commit"]
    n = sum(tensor.numel() for name, tensor in load_file(file).items() if not re.search("running|num_batches", name))
    assert facts["parameters"].replace(" ", "") == str(n)
    assert record["host"] not in text


@pytest.mark.parametrize(
    ("objective", "says"),
    [
        ({"name": "untrained"}, "ResNet-10 with random initial weights, not trained."),
        ({"name": "supervised", "classes": 4}, "ResNet-10 pretrained with labels for 2 epochs on synthetic."),
    ],
)
def test_the_card_of_a_reference_does_not_say_that_it_learned_without_labels(synthetic, tmp_path, objective, says):
    run = RunSpec.model_validate(
        {
            "data": json.loads((synthetic / "meta.json").read_text())["spec"],
            "objective": objective,
            "encoder": {"arch": "resnet10", "width": 8, "dim": 64},
            "optim": {"epochs": 2, "batch_size": 32, "warmup_epochs": 0},
        }
    )
    pretrain(run, 1, synthetic, tmp_path / "s1", CPU)
    _, card = export(tmp_path / "s1", tmp_path / "mine")
    text = card.read_text()
    assert says in text and "without labels" not in text
    assert hub.load(tmp_path / "mine").dim == 64


LINEAR = [("weight decay 1e-06", 0.40, 0.30), ("weight decay 0.01", 0.55, 0.20), ("weight decay 0.3", 0.50, 0.45)]


@pytest.fixture
def unscored(changed):
    """That copy without its scores, and with the folder that they are in."""
    (folder,) = (changed / "probes").iterdir()
    for path in folder.iterdir():
        path.unlink()
    return changed, folder


def accuracies(card):
    """The table of scores, and its header."""
    head, _, *scores = [cells for cells in rows(card) if len(cells) == 6]
    return head, scores


def test_the_card_shows_both_selections_and_each_probe_once(unscored, tmp_path):
    folder, probes = unscored
    for name in ("linear-00000001-s3", "linear-00000002-s3"):  # two experiments ask for the same
        write_scores(probes / f"{name}.csv", *LINEAR, n_labels=64)
    write_scores(
        probes / "linear-00000002-s3.csv", ("weight decay 1e-06, epochs 5", 0.25, None), fraction=0.5, n_labels=32
    )
    write_scores(
        probes / "svm-00000003-s3.csv", ("C = 1", 0.6, None), ("C = 0.1 (tuned)", 0.7, 0.5), kind="svm", n_labels=64
    )
    head, scores = accuracies(export(folder, tmp_path / "mine")[1].read_text())
    assert head[3:5] == ["selected on held-out train", "selected on test"]
    assert scores == [
        [
            "synthetic-195f4d71",
            "linear",
            "64 (100 %)",
            "50.0",
            "55.0",
            "weight decay 1e-06; weight decay 0.01; weight decay 0.3",
        ],
        ["synthetic-195f4d71", "linear", "32 (50 %)", "25.0", "25.0", "weight decay 1e-06, epochs 5"],
        ["synthetic-195f4d71", "svm", "64 (100 %)", "70.0", "70.0", "C = 1; C = 0.1 (tuned)"],
    ]


def test_the_card_shows_scores_on_other_data_and_top_1_alone(unscored, tmp_path):
    folder, probes = unscored
    write_scores(probes / "linear-00000001-s3.csv", *LINEAR, n_labels=64)
    other = folder / "probes/cifar10-11111111/svm-00000003-s3.csv"
    other.parent.mkdir()
    write_scores(other, ("C = 1", 0.6, None), kind="svm", n_labels=50000)
    write_scores(other, ("C = 1", 0.99, None), kind="svm", n_labels=50000, metric="top-5")
    _, scores = accuracies(export(folder, tmp_path / "mine")[1].read_text())
    assert [cells[:5] for cells in scores] == [
        ["cifar10-11111111", "svm", "50000 (100 %)", "60.0", "60.0"],
        ["synthetic-195f4d71", "linear", "64 (100 %)", "50.0", "55.0"],
    ]


def test_the_card_shows_the_scores_of_a_real_probe(finished, tmp_path):
    (path,) = finished[0].glob("probes/*/*.csv")
    with path.open() as file:
        (scored,) = [line for line in csv.DictReader(file) if line["metric"] == "top-1"]
    text = export(finished[0], tmp_path / "mine")[1].read_text()
    accuracy = f"{100 * float(scored['test_acc']):.1f}"
    setting = "weight decay 1e-06, epochs 3, batch size 16"
    assert accuracies(text)[1] == [["synthetic-195f4d71", "linear", "64 (100 %)", accuracy, accuracy, setting]]


def test_the_code_on_the_card_works(finished, tmp_path, monkeypatch):
    card = export(finished[0], tmp_path / "mine")[1].read_text()
    monkeypatch.chdir(tmp_path)
    names = {"image": IMAGE}
    exec(block(card, "python"), names)
    assert names["z"].shape == (1, 128)


def test_the_card_of_a_run_without_probes_says_so(unscored, tmp_path):
    assert "No probe of this run has been scored." in export(unscored[0], tmp_path / "mine")[1].read_text()


# --- refusals: one line, and nothing is written ---


def test_an_unfinished_run_is_refused(changed, tmp_path):
    (changed / "run.json").unlink()
    says = f"{changed}: not the folder of a finished run: it has no "
    assert refusal(changed, tmp_path / "mine") == f"{says}run.json"
    (changed / "encoder.safetensors").unlink()
    assert refusal(changed, tmp_path / "mine") == f"{says}encoder.safetensors"


@pytest.mark.parametrize(
    ("content", "says"),
    [("{", "cannot be read"), ("{}", "lacks 'seed'"), ("[]", "cannot be read (not a mapping)")],
)
def test_a_damaged_record_is_refused(changed, tmp_path, content, says):
    (changed / "run.json").write_text(content)
    assert f"{changed / 'run.json'}: {says}" in refusal(changed, tmp_path / "mine")


HEADER = ",".join(SCORES)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "cannot be read"),
        ("kind,weight_decay\nlinear,1e-6\n", "lacks the column 'setting'"),
        (f"{HEADER}\n", "no test accuracy"),
        (f"{HEADER}\nlinear,x,0,1,64,32,top-1,,\n", "no test accuracy"),
    ],
)
def test_damaged_scores_are_refused(unscored, tmp_path, content, says):
    folder, probes = unscored
    path = probes / "linear-00000001-s3.csv"
    path.write_text(content)
    assert f"{path}: {says}" in refusal(folder, tmp_path / "mine")


def test_weights_that_would_not_load_are_refused(changed, tmp_path):
    file = changed / "encoder.safetensors"
    _, notes = hub.weights.read_safetensors(file)
    tensors = load_file(file)
    save_file({name: tensor for name, tensor in tensors.items() if name != "bn1.bias"}, file, metadata=notes)
    assert "1 missing (bn1.bias)" in refusal(changed, tmp_path / "mine")


@pytest.mark.parametrize("name", ["README.md", "encoder.safetensors"])
def test_nothing_is_overwritten(finished, tmp_path, name):
    there = tmp_path / "mine" / name
    there.parent.mkdir()
    there.write_text("mine")
    assert refusal(finished[0], there.parent) == f"{there}: exists already; delete it, or choose another --out"
    assert there.read_text() == "mine"


def test_a_read_only_destination_is_refused(finished, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    assert f"{tmp_path / 'file'}" in refusal(finished[0], tmp_path / "file/mine")


def test_a_failure_while_writing_leaves_nothing(finished, tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr("issl.report.export._card", broken)
    with pytest.raises(OSError, match="disk full"):
        export(finished[0], tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir()) == []


def test_the_command_prints_what_it_wrote(finished, tmp_path):
    out = tmp_path / "mine"
    done = CliRunner().invoke(cli.issl, ["export", str(finished[0]), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert done.output.split() == [str(out / "encoder.safetensors"), str(out / "README.md")]
    assert all(Path(line).is_file() for line in done.output.split())
    again = CliRunner().invoke(cli.issl, ["export", str(finished[0]), "--out", str(out)])
    assert isinstance(again.exception, UserError)
