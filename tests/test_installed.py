"""The wheel, installed into an environment without a checkout: the command, plans, encoders by name and by folder."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import torch
from project import PROJECT

from issl import hub
from issl.jobs.execution import Execution
from issl.training.pretrain import pretrain

pytestmark = pytest.mark.slow

ABOUT = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
RELEASED = "dissl_resnet50_dNone_e100_m2"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy, because setuptools writes beside what it packs."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    shutil.copytree(PROJECT / "issl", source / "issl", ignore=shutil.ignore_patterns("__pycache__"))
    _pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", out, source)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def environment(wheel, tmp_path_factory) -> Path:
    """An environment that has the wheel and borrows everything else from the one that runs the tests."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    _pip("--python", folder / "bin/python", "install", "--no-deps", "--no-index", wheel)
    (packages,) = folder.glob("lib/python*/site-packages")
    # Lines of a .pth file go last on the path, and .pth files in these folders, such as an editable issl, do not count.
    borrowed = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    (packages / "borrowed.pth").write_text("\n".join(borrowed))
    return folder


@pytest.fixture
def run(environment, tmp_path, monkeypatch):
    """Runs a program of that environment in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(program: str, *words: object, check: bool = True) -> subprocess.CompletedProcess:
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [environment / "bin" / program, *map(str, words)]
        done = subprocess.run(command, env=clean, capture_output=True, text=True)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return call


def _pip(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *map(str, words)], check=True)


def test_the_wheel_holds_every_file_of_the_package(wheel):
    ours = {path for path in (PROJECT / "issl").rglob("*") if path.is_file() and path.parent.name != "__pycache__"}
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("issl/")}
    assert packed == {path.relative_to(PROJECT).as_posix() for path in ours}
    assert {"issl/py.typed", "issl/report/templates/card.md.j2"} <= packed


def test_the_package_and_the_command_come_from_the_wheel(run, environment):
    where = run("python", "-c", "import issl; print(issl.__file__)").stdout
    assert Path(where.strip()).is_relative_to(environment)
    assert run("issl", "--version").stdout == f"issl {ABOUT['version']}\n"


def test_the_metadata_name_the_paper_and_the_extras(environment):
    (found,) = environment.glob("lib/python*/site-packages/issl-*.dist-info")
    about = importlib.metadata.PathDistribution(found).metadata
    assert any("arxiv.org" in url for url in about.get_all("Project-URL"))
    assert set(about.get_all("Provides-Extra")) == ABOUT["optional-dependencies"].keys()
    assert "Typing :: Typed" in about.get_all("Classifier")


def test_a_plan_without_a_config_ends_in_one_line(run, tmp_path):
    answer = run("issl", "plan", "fig7c", check=False)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.startswith(f"error: no config.yaml in {tmp_path}: ") and answer.stderr.count("\n") == 1


def test_a_plan_takes_its_config_with_presets_and_experiments_from_elsewhere(run):
    plan = run("issl", "plan", "fig7c", "baselines", "--json", "--configfile", PROJECT / "config.yaml")
    methods = {each["run"].partition("-")[0] for each in json.loads(plan.stdout)[0]["runs"]}
    assert {"cissl", "byol"} <= methods  # of config.yaml, and of experiments/ beside it
    assert "cissl" in run("issl", "plan", "tiny", "--configfile", PROJECT / "config.yaml").stdout


def test_a_run_is_loaded_as_in_the_checkout(run, synthetic, make_run, tmp_path):
    spec, folder = make_run("simclr"), tmp_path / "run"
    pretrain(spec, 1, synthetic, folder, Execution(device="cpu", progress=False))
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.save(images, "images.pt")
    script = (
        "import sys, torch; from issl import hub; torch.save(hub.load(sys.argv[1])(torch.load('images.pt')), 'z.pt')"
    )
    run("python", "-c", script, folder)
    torch.testing.assert_close(torch.load("z.pt"), hub.load(folder)(images))


def test_torch_hub_finds_the_installed_package(run, environment, tmp_path):
    shutil.copy(PROJECT / "hubconf.py", tmp_path)
    script = (
        f"import torch; encoder = torch.hub.load('.', '{RELEASED}', source='local', pretrained=False);"
        "import issl; print(encoder.dim, tuple(encoder(torch.zeros(1, 3, 64, 64)).shape), issl.__file__)"
    )
    shown = run("python", "-c", script).stdout
    assert shown.startswith("2048 (1, 2048) ") and str(environment) in shown
