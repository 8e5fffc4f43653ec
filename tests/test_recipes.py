"""The recipes of docs/extending.md, carried out on a copy of the package."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from project import PROJECT

PAGE = (PROJECT / "docs/extending.md").read_text()


def blocks(section, language="python"):
    """Code blocks of a section of the page."""
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    assert text, section
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def copy(tmp_path):
    """A copy of the package, and how Python runs code with it."""
    shutil.copytree(PROJECT / "issl", tmp_path / "issl", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "config.yaml", tmp_path)

    def run(*arguments):
        environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{PROJECT / 'tests'}"}
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return tmp_path, run


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
    module, settings, table, variant, test = blocks("Add a method")
    (folder / "issl/objectives/vicreg.py").write_text(module)
    spec = folder / "issl/spec/objective.py"
    declared, union = re.split(r"(?=^ObjectiveSpec = )", settings, flags=re.MULTILINE)
    insert(spec, "ObjectiveSpec = Annotated", declared.strip() + "\n")
    spec.write_text(re.sub(r"^ObjectiveSpec = .*?^\]$", union.strip(), spec.read_text(), flags=re.M | re.S))
    statement, entries = re.split(r"(?=^OBJECTIVES)", table, flags=re.MULTILINE)
    registry = folder / "issl/objectives/__init__.py"
    replace(registry, "from issl.spec import objective", statement.strip() + "\nfrom issl.spec import objective")
    registry.write_text(re.sub(r"^OBJECTIVES.*?^}$", entries.strip(), registry.read_text(), flags=re.M | re.S))
    [entry] = blocks("Add a method", "yaml")
    replace(folder / "config.yaml", "patches:  ", entry + "\npatches:  ")
    replace(folder / "config.yaml", "SimCLR:   {method: simclr}", "SimCLR:   {method: vicreg}")
    assert "vicreg-z512-e300" in run("-m", "issl", "plan", "table1_contrastive")
    (folder / "test_vicreg.py").write_text(test)
    run("-m", "pytest", "-q", "test_vicreg.py")
    assert "VARIANTS" in variant


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
    insert(spec, "Probe = Annotated[", settings.strip() + "\n")
    replace(spec, "Logistic | SVM, Field", "Logistic | SVM | Means, Field")
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
