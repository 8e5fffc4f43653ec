"""The notebooks run as they are, say what their scripts say, and compute the losses of issl.objectives."""

import re
from pathlib import Path

import jupytext
import nbclient
import nbformat
import pytest
import torch
from torch import nn

from issl import spec
from issl.objectives import CISSL, DISSL
from issl.objectives.base import Clock

FOLDER = Path(__file__).parent.parent / "notebooks"
NAMES = ("minimal_cissl", "minimal_dissl", "torchhub")
MINIMAL = NAMES[:2]
CLOCK = Clock(0, 1, 0, 1)

each = pytest.mark.parametrize("name", NAMES)


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def executed(name: str) -> str:
    """What the notebook prints, run from its first cell to its last in a kernel of its own."""
    notebook = read(name)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(FOLDER)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")


def method(name: str, fast: bool) -> dict:
    """What the cells define that need neither data nor training: those that are tagged `method`."""
    names: dict = {}
    for cell in read(name).cells:
        if "method" in cell.metadata.get("tags", []):
            source = cell.source if fast else cell.source.replace("FAST = True", "FAST = False")
            exec(source, names)
    assert names["FAST"] is fast
    return names


def accuracies(printed: str) -> list[float]:
    """In per cent, as they are printed, first to last."""
    return [float(value) for value in re.findall(r"test accuracy.*: ([\d.]+)%", printed)]


def millions(module: nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


# --- the files ---


def test_every_notebook_is_tested():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == list(NAMES)
    assert sorted(path.stem for path in FOLDER.glob("*.py")) == list(NAMES)


@each
def test_notebook_and_script_are_the_same(name):
    script = jupytext.read(FOLDER / f"{name}.py")
    notebook = read(name)
    kept = [[(cell.cell_type, cell.source, cell.metadata) for cell in pair.cells] for pair in (script, notebook)]
    assert kept[0] == kept[1], f"jupytext --sync notebooks/{name}.py"


@each
def test_notebooks_are_short_fast_and_without_outputs(name):
    notebook = read(name)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert len((FOLDER / f"{name}.py").read_text().splitlines()) < 150
    assert sum(len(cell.source.splitlines()) for cell in notebook.cells) < 150
    assert sum(line == "FAST = True" for cell in code for line in cell.source.splitlines()) == 1


@pytest.mark.parametrize("name", MINIMAL)
def test_the_minimal_ones_need_no_package_of_this_project(name):
    imported = set(re.findall(r"^(?:from|import) (\w+)", (FOLDER / f"{name}.py").read_text(), re.MULTILINE))
    assert imported == {"PIL", "numpy", "sklearn", "torch", "torchvision"}


# --- the methods ---


def test_dissl_loss_is_that_of_the_package():
    torch.manual_seed(0)
    objective = DISSL(spec.DISSL(name="dissl", classes=11, hidden=9, bottleneck=5), 6, nn.Identity())
    for parameter in objective.parameters():  # away from the almost uniform start
        nn.init.normal_(parameter, std=0.7)
    z = torch.randn(14, 6)
    expected = objective(z, z, CLOCK).loss
    logits = (half for head in (objective.projector, objective.predictor) for half in head(z).chunk(2))
    torch.testing.assert_close(method("minimal_dissl", fast=True)["dissl_loss"](*logits), expected)


def test_cissl_loss_is_that_of_the_package():
    torch.manual_seed(0)
    objective = CISSL(spec.CISSL(name="cissl", hidden=9, out=8), 6, nn.Identity())
    for parameter in objective.parameters():
        nn.init.normal_(parameter, std=0.7)
    z = torch.randn(14, 6)
    expected = objective(z, z, CLOCK).loss
    loss = method("minimal_cissl", fast=True)["cissl_loss"](objective.projector(z), objective.predictor(z))
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(("name", "teacher", "student"), [("minimal_dissl", 10.5, 8.4), ("minimal_cissl", 2.2, 0.0659)])
def test_the_slow_setting_has_the_networks_of_the_authors(name, teacher, student):
    """Sizes as the authors' notebooks print them, in millions of parameters."""
    names = method(name, fast=False)
    assert round(millions(names["encoder"]), 1) == 11.2
    assert round(millions(names["teacher"]), 1) == teacher
    assert round(millions(names["student"]), 4 if student < 1 else 1) == student
    encoder = names["encoder"].eval()
    with torch.no_grad():
        assert encoder(torch.zeros(1, 3, 96, 96, device=names["DEVICE"])).shape == (1, 512)


@pytest.mark.parametrize("name", MINIMAL)
def test_views_are_two_draws_for_each_image_in_order(name):
    names = method(name, fast=True)
    size = names["SIZE"]
    black, white = (names["Image"].new("RGB", (size, size), colour) for colour in ("black", "white"))
    views = names["two_views"]([(black, 0), (white, 1), (white, 1)])
    rows = torch.cat(views) if isinstance(views, list) else views  # (2B, 3, H, W)
    assert rows.shape == (6, 3, size, size)
    assert (rows.mean((1, 2, 3)) > 0).tolist() == [False, True, True] * 2
    assert len({row.sum().item() for row in rows}) > 2  # drawn, not copied


# --- whole ---


@pytest.mark.slow
@pytest.mark.parametrize("name", MINIMAL)
def test_the_minimal_notebooks_learn(name):
    printed = executed(name)
    before, after = accuracies(printed)
    losses = [float(value) for value in re.findall(r"loss.* (-?[\d.]+)$", printed, re.MULTILINE)]
    assert losses[-1] < losses[0] - 0.1
    assert after > 60, printed  # chance is 10 %; see notebooks/README.md for what it is
    assert 40 < before < 100


@pytest.mark.slow
def test_the_hub_notebook_runs():
    (accuracy,) = accuracies(executed("torchhub"))
    assert accuracy > 50  # chance is 25 %, and the directions of stripes are easy
