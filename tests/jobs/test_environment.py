"""Jobs run the code of their own workflow, or stop."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from project import PROJECT

from issl.errors import UserError
from issl.jobs import environment


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    for name in ("PATH", "PYTHONPATH", environment.PROJECT):
        monkeypatch.setenv(name, os.environ.get(name, ""))


def test_the_project_and_its_python_come_first_and_once(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/elsewhere", str(PROJECT)]))
    environment.use_this_checkout(str(PROJECT))
    environment.use_this_checkout(str(PROJECT))
    assert os.environ["PYTHONPATH"] == os.pathsep.join([str(PROJECT), "/elsewhere"])
    assert os.environ["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    environment.refuse_other_checkout()


def test_a_path_that_pythonpath_would_split_is_refused():
    with pytest.raises(UserError, match=r"/home/me/a:b/issl: the path of this project contains ':'; move it"):
        environment.use_this_checkout("/home/me/a:b/issl")


@pytest.mark.parametrize("command", [["-m", "issl", "prepare", "--spec", "{}", "--out", "x"], ["script.py"]])
def test_a_job_that_imports_another_copy_stops_in_one_line(tmp_path, command):
    """Such as an installed one, where the workflow's own cannot be found; as a command, and as a script of a rule."""
    shutil.copytree(PROJECT / "issl", tmp_path / "issl", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "script.py").write_text(
        "from issl.jobs.logs import to_file\nwith to_file('script.log'):\n    print('made')\n"
    )

    def run(project):
        there = os.environ | {"PYTHONPATH": str(tmp_path), environment.PROJECT: str(project)}
        arguments = [sys.executable, *command]
        return subprocess.run(arguments, cwd=tmp_path, env=there, capture_output=True, text=True, check=False)

    other, own = run(PROJECT), run(tmp_path)
    assert other.returncode == 1 and other.stdout == ""
    assert f"this job runs the code in {tmp_path}, but its workflow is in {PROJECT}" in other.stderr
    assert other.stderr.startswith("error: ") and len(other.stderr.strip().splitlines()) == 1
    assert "this job runs the code" not in own.stderr
