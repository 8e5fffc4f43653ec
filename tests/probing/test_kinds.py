"""Every kind of probe has a module that scores it."""

import inspect
import subprocess
import sys

import pytest

from issl.probing import kinds
from issl.probing.scores import Score
from issl.probing.task import Task
from issl.spec import probe
from issl.spec.probe import ProbeGrid


def test_every_kind_of_probe_has_a_module():
    assert kinds.KINDS.keys() == probe.KINDS.keys()


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_every_module_scores_a_grid_on_a_task(kind):
    signature = inspect.signature(kinds.evaluate(kind))
    assert [parameter.annotation for parameter in signature.parameters.values()] == [ProbeGrid, Task]
    assert signature.return_annotation == list[Score]


def test_a_job_imports_only_the_kind_that_it_needs():
    code = """
import sys
from issl.probing import job, kinds
before = {name for name in sys.modules if name.startswith(("issl.probing", "sklearn", "scipy"))}
kinds.evaluate("linear")
print(sorted(before), sorted({name for name in sys.modules if name.startswith("issl.probing")} - before))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    known = ["issl.probing"] + [f"issl.probing.{name}" for name in ("job", "kinds", "scores", "shards", "task")]
    assert found.strip() == f"{known} {['issl.probing.heads', 'issl.probing.side_by_side', 'issl.probing.subsets']}"
