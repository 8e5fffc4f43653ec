"""The notebooks: as files, executed as they are, and in the authors' setting on a few images in STL10's files."""

import ast
import json
import sys
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pytest
import torch
import torchvision
from nbclient import NotebookClient
from project import PROJECT
from torch import nn
from torchvision import transforms

from issl.objectives import OBJECTIVES
from issl.objectives.base import Clock
from issl.spec import objective as spec

FOLDER = PROJECT / "notebooks"
MINIMAL = ["minimal_cissl", "minimal_dissl"]
NAMES = [*MINIMAL, "fit", "torchhub"]
NEEDED = {"numpy", "sklearn", "torch", "torchvision"}

every_notebook = pytest.mark.parametrize("name", NAMES)
every_minimal = pytest.mark.parametrize("name", MINIMAL)


def script(name: str) -> str:
    return (FOLDER / f"{name}.py").read_text()


def notebook(name: str, *changes: str) -> nbformat.NotebookNode:
    """The stored notebook, with lines added to the end of the cell that holds its settings."""
    content = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    (settings,) = [cell for cell in content.cells if "FAST = True\n" in cell.source]
    settings.source = "\n".join([settings.source, *changes])
    return content


def execute(content: nbformat.NotebookNode, folder: Path, **expressions: str):
    """Runs a notebook in a folder, and returns what the expressions are in the end, by name."""
    values = ", ".join(f"{name!r}: {expression}" for name, expression in expressions.items())
    content.cells.append(nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({{{values}}}))"))
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(content, timeout=600, kernel_name="python3", resources=resources).execute()
    (output,) = content.cells[-1].outputs
    return json.loads(output.text)


# --- as files ---


def test_the_notebooks_exist():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == {path.stem for path in FOLDER.glob("*.py")} == set(NAMES)


@every_notebook
def test_a_notebook_and_its_script_have_the_same_cells(name):
    def cells(content):
        return [(cell.cell_type, cell.source) for cell in content.cells]

    assert cells(notebook(name)) == cells(jupytext.reads(script(name), fmt="py:percent"))


@every_notebook
def test_a_notebook_is_valid_and_stores_no_outputs(name):
    content = notebook(name)
    nbformat.validate(content)
    assert content.metadata.kernelspec.name == "python3"
    for cell in content.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None


@every_minimal
def test_a_minimal_notebook_has_less_than_150_lines(name):
    assert len(script(name).splitlines()) < 150


@every_notebook
def test_a_notebook_imports_only_the_packages_it_names(name):
    nodes = list(ast.walk(ast.parse(script(name))))
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {module.partition(".")[0] for module in modules} - set(sys.stdlib_module_names) <= NEEDED | (
        {"issl"} if name == "fit" else set()
    )


# --- objectives ---


def loss_function(name: str):
    """The function of a minimal notebook that gives its loss, without running the rest."""
    tree = ast.parse(script(name))
    tree.body = [
        node
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        or (isinstance(node, ast.FunctionDef) and node.name.endswith("_loss"))
    ]
    space: dict = {}
    exec(compile(tree, name, "exec"), space)
    return space[f"{name.removeprefix('minimal_')}_loss"]


def test_losses_and_gradients_equal_those_of_the_package():
    objectives = {
        "cissl": spec.CISSL(name="cissl", hidden=24, out=8),
        "dissl": spec.DISSL(name="dissl", hidden=24, bottleneck=8, classes=20),
    }
    for method, settings in objectives.items():
        torch.manual_seed(0)
        objective = OBJECTIVES[method](settings, 12, nn.Identity())
        for parameter in objective.parameters():
            nn.init.normal_(parameter)  # far from the even predictions of new heads
        z = torch.randn(14, 12, requires_grad=True)  # two views of seven images
        expected = objective(z, z, Clock(0, 1, 0, 1)).loss

        teacher, student = objective.projector(z), objective.predictor(z)
        loss = loss_function(f"minimal_{method}")
        found = loss(*teacher.chunk(2), *student.chunk(2)) if method == "dissl" else loss(student, teacher)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(*(torch.autograd.grad(of, z, retain_graph=True) for of in (found, expected)))


# --- as they are ---


@pytest.mark.slow
@every_minimal
def test_a_minimal_notebook_beats_its_untrained_encoder(name, tmp_path):
    accuracy = execute(notebook(name), tmp_path, it="accuracy")["it"]
    untrained = execute(notebook(name, "EPOCHS = 0"), tmp_path, it="accuracy")["it"]
    assert 1 / 8 < untrained < accuracy - 0.15
    assert accuracy > 0.8  # 88 to 93 % with four seeds
    assert not list(tmp_path.iterdir())  # nothing is downloaded or left behind


@pytest.mark.slow
def test_the_notebook_of_fit_beats_its_untrained_encoder(tmp_path):
    """By far more than 1.5 points, the standard error of one accuracy."""
    found = execute(notebook("fit"), tmp_path, accuracies="accuracies", epochs="len(trained.history)")
    assert found["epochs"] == 9
    assert found["accuracies"]["trained"] > found["accuracies"]["untrained"] + 6


@pytest.mark.slow
def test_the_torch_hub_notebook_runs_to_its_end():
    """Its accuracy is that of new weights, so only what it has made is looked at."""
    made = execute(
        notebook("torchhub"),
        FOLDER,
        shapes="[list(z.shape) for z in (z_train, z_test)]",
        different="len(np.unique(z_test, axis=0))",
        training="encoder.training",
        accuracy="accuracy",
    )
    assert made["shapes"] == [[32, 2048], [16, 2048]]
    assert made["different"] == 16
    assert not made["training"]
    assert 0.5 < made["accuracy"] <= 1


# --- in the authors' setting, on a few images ---


def write_stl10(root: Path, classes: int, **splits: int) -> None:
    """STL10's files. Images have one colour a class and noise; test labels are those of the next class."""
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    colours = rng.permutation(np.stack(np.meshgrid([30, 128, 225], [30, 128, 225], [30, 225]), -1).reshape(-1, 3))
    for split, number in splits.items():
        y = np.arange(number) % classes
        images = colours[y][:, :, None, None] + 10 * rng.normal(size=(number, 3, 96, 96))
        images.clip(0, 255).astype(np.uint8).tofile(folder / f"{split}_X.bin")
        if split != "unlabeled":
            shifted = (y + (split == "test")) % classes
            (shifted + 1).astype(np.uint8).tofile(folder / f"{split}_y.bin")


def authors(name: str, *changes: str) -> nbformat.NotebookNode:
    """The notebook with FAST = False, which takes the STL10 that it finds for the real one."""
    content = notebook(name, "STL10._check_integrity = lambda self: True", *changes)
    for cell in content.cells:
        cell.source = cell.source.replace("FAST = True\n", "FAST = False\n")
    return content


@pytest.mark.slow
@every_minimal
def test_a_minimal_notebook_has_the_authors_setting_and_uses_the_test_split(name, tmp_path):
    write_stl10(tmp_path / "data", 10, unlabeled=32, train=100, test=50)
    made = execute(
        authors(name, "AUTHORS = SIZE, DIM, EPOCHS, BATCH", "EPOCHS, BATCH, WORKERS = 1, 16, 1"),
        tmp_path,
        setting="AUTHORS",
        optimizer="[optimizer.defaults[key] for key in ('lr', 'weight_decay')]",
        parameters="[sum(p.numel() for p in module.parameters()) for module in modules]",
        train="probe.score(*represent('train'))",
        test="accuracy",
    )
    assert made["setting"] == [96, 512, 100, 256]
    assert made["optimizer"] == [2e-3, 1e-6]
    # The authors' notebooks print 11.2 M, then 2.2 M and 65.9 K for CISSL, and 10.5 M and 8.4 M for DISSL.
    heads = {"minimal_cissl": [2_170_752, 65_920], "minimal_dissl": [10_509_824, 8_404_992]}[name]
    assert made["parameters"] == [11_176_512, *heads]
    # Test labels are those of the next class: a probe that knows train labels is wrong about them, chance being 1 / 10.
    # How much one epoch teaches differs between CPUs, so it is the distance that is asked for.
    assert made["train"] > made["test"] + 0.3
    assert made["test"] <= 0.1


@pytest.mark.slow
def test_the_torch_hub_notebook_represents_images_as_torchvision(tmp_path, monkeypatch):
    for part in ("hubconf.py", "issl"):
        (tmp_path / part).symlink_to(PROJECT / part)
    folder = tmp_path / "notebooks"
    write_stl10(folder / "data", 2, train=20, test=6)
    torch.manual_seed(0)
    resnet = torchvision.models.resnet50()
    resnet.fc = nn.Identity()
    with torch.no_grad():
        resnet(torch.randn(8, 3, 64, 64))  # running statistics that matter
    checkpoints = tmp_path / "torch/hub/checkpoints"
    checkpoints.mkdir(parents=True)
    torch.save(resnet.state_dict(), checkpoints / "dissl_resnet50_dNone_e400_m6.torch")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    changes = "BATCH, WORKERS = 8, 1"
    made = execute(authors("torchhub", changes), folder, z="z_test.tolist()", y="y_test.tolist()", test="accuracy")

    prepare = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    monkeypatch.setattr(torchvision.datasets.STL10, "_check_integrity", lambda self: True)
    images = torchvision.datasets.STL10(folder / "data", "test")
    with torch.no_grad():
        z = resnet.eval()(torch.stack([prepare(image) for image, _ in images]))
    torch.testing.assert_close(torch.tensor(made["z"]), z, rtol=1e-3, atol=1e-4)
    assert made["y"] == [1, 0, 1, 0, 1, 0]  # see `write_stl10`
    assert made["test"] == 0
