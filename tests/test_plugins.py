"""Methods and probes of other installed packages: what docs/extending.md says, in a real process."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from extending import blocks
from project import PROJECT

MEANS = """
from typing import ClassVar, Literal
from issl.spec.value import Value


class Means(Value):
    implementation: ClassVar[str] = "issl_means:evaluate"
    kind: Literal["means"]
    fraction: Literal[1] = 1


def evaluate(grid, task):
    return []
"""


def install(folder: Path, package: str, group: str, entries: dict[str, str], **modules: str):
    """What pip leaves of a package: its modules, and metadata with its entry points."""
    for name, content in modules.items():
        path = folder.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent != folder:
            (path.parent / "__init__.py").touch()
        path.write_text(content)
    about = folder / f"{package.replace('-', '_')}-0.1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1\n")
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def spectral(tmp_path):
    """The package of the recipe, installed in a folder of its own."""
    [settings] = blocks("Keep it in a package of your own", "python")
    [about] = blocks("Keep it in a package of your own", "toml")
    objective = blocks("Add a method", "python")[0]
    objective = objective.replace(
        "from issl.spec import objective as spec", "from issl_spectral.settings import Spectral as Settings"
    )
    objective = objective.replace("spec.Spectral", "Settings")
    [(name, value)] = re.findall(r'^(\w+) = "(issl_spectral\..+)"$', about, re.MULTILINE)
    modules = {"issl_spectral.settings": settings, "issl_spectral.objective": objective}
    install(tmp_path / "site", "issl-spectral", "issl.objectives", {name: value}, **modules)
    lines = [line for text in (*modules.values(), about) for line in text.splitlines() if line.strip()]
    assert len(lines) <= 60
    return tmp_path / "site"


def run(site: Path, *arguments: str, check: bool = True, cwd: Path = PROJECT):
    environment = os.environ | {"PYTHONPATH": f"{site}:{PROJECT}", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, *arguments], env=environment, cwd=cwd, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


USING = """
methods: {spectral: {label: Spectral, objective: {name: spectral, out: 64}}}
experiments: {mine: {rows: {a: {method: spectral}}, probes: [{}], table: {caption: mine}}}
"""


def plan(site):
    """The plan of an experiment that uses the method."""
    site.mkdir(exist_ok=True)
    (site / "mine.yaml").write_text(USING)
    return run(site, "-m", "issl", "plan", "mine", "--configfile", str(site / "mine.yaml"), check=False)


def test_a_method_of_another_package_is_planned_trained_and_fingerprinted(spectral, tmp_path):
    assert "spectral-z512-e300-" in plan(spectral).stdout
    assert "objective: unknown name 'spectral'" in plan(tmp_path / "nothing").stderr
    code = f"""
import json, numpy as np, issl
from issl.jobs import fingerprint
images = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3)).astype(np.uint8)
fit = issl.fit(images, method={{"name": "spectral", "hidden": 8, "out": 8}}, encoder={{"arch": "resnet10", "width": 8}},
               epochs=1, optim={{"batch_size": 8}}, device="cpu", out={str(tmp_path / "run")!r})
print(len(fit.history), fit.transform(images).shape)
record = json.load(open({str(tmp_path / "run/run.json")!r}))
modules = sorted(name for name in record["code"]["modules"] if "spectral" in name)
print(json.dumps([modules, fingerprint.changed(record["code"], "pretrain")]))
open({str(spectral / "issl_spectral/objective.py")!r}, "a").write("EDITED = 1\\n")
fingerprint.current.cache_clear()
print(json.dumps(fingerprint.changed(record["code"], "pretrain")))
"""
    history, first, edited = run(spectral, "-c", code).stdout.splitlines()[-3:]
    assert history == "1 (24, 64)"
    assert json.loads(first) == [["issl_spectral", "issl_spectral.objective", "issl_spectral.settings"], []]
    assert json.loads(edited) == ["issl_spectral.objective"]


MIXER = """
from typing import ClassVar, Literal
from pydantic import PositiveInt
from issl.spec.value import Value


class Mixer(Value):
    implementation: ClassVar[str] = "issl_mixer.network:build"
    arch: Literal["mixer"]
    dim: PositiveInt = 16
"""
NETWORK = """
from torch import nn


class Mixer(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dim = self.channels = dim
        self.maps = nn.Conv2d(3, dim, 4, 4)

    def forward(self, images):
        return self.with_maps(images)[0]

    def with_maps(self, images):
        maps = self.maps(images)
        return maps.mean((2, 3)), maps


def build(encoder, image_size):
    return Mixer(encoder.dim)
"""


def test_an_encoder_of_another_package_is_checked_trained_and_loaded(tmp_path):
    site = tmp_path / "site"
    modules = {"issl_mixer.settings": MIXER, "issl_mixer.network": NETWORK}
    install(site, "issl-mixer", "issl.encoders", {"mixer": "issl_mixer.settings:Mixer"}, **modules)
    (tmp_path / "mine.yaml").write_text(
        "experiments: {mine: {base: {method: simclr}, rows: {a: {encoder: {arch: mixer, dim: 24}}}, probes: [{}], "
        "table: {caption: mine}}}"
    )
    code = f"""
import json, sys, numpy as np, issl
from issl import hub
from issl.config.plan import load
from issl.planning.possible import refuse_impossible
plans = load({str(PROJECT / "config.yaml")!r}, [{str(tmp_path / "mine.yaml")!r}])
refuse_impossible(plans)
[row] = plans["results"].rows["mine"]
print(row.run.encoder.dim)
images = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3)).astype(np.uint8)
fit = issl.fit(images, method="simclr", encoder="mixer", epochs=1, optim={{"batch_size": 8}}, device="cpu", out="run")
assert (fit.network.dim, type(fit.network).__module__) == (16, "issl_mixer.network")
assert type(hub.load("run")).__name__ == "Mixer" and fit.transform(images).shape == (24, 16)
record = json.load(open("run/run.json"))
print(sorted(name for name in record["code"]["modules"] if "mixer" in name))
"""
    done = run(site, "-c", code, cwd=tmp_path).stdout.splitlines()
    assert done[0] == "24" and done[-1] == "['issl_mixer', 'issl_mixer.network', 'issl_mixer.settings']"


SHADES = """
from typing import ClassVar, Literal
from issl.spec.data import DataSet


class Shades(DataSet):
    implementation: ClassVar[str] = "issl_shades.reader:read"
    kind: Literal["shades"]
    name: Literal["shades"] = "shades"
    image_size: Literal[8] = 8
"""
READER = """
import numpy as np
from issl.data.arrays import Content


def read(spec, progress=False):
    labels = np.arange(12) % 2
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)
    return Content(labels, {"train": 8, "test": 4}, ["dark", "light"], 8, lambda: lambda a, b: images[a:b], {}, False)
"""


def test_a_kind_of_data_of_another_package_is_planned_and_prepared(tmp_path):
    site = tmp_path / "site"
    modules = {"issl_shades.settings": SHADES, "issl_shades.reader": READER}
    install(site, "issl-shades", "issl.data", {"shades": "issl_shades.settings:Shades"}, **modules)
    (tmp_path / "mine.yaml").write_text("data: {mine: {kind: shades}}\ndefaults: {data: mine}\n")
    code = f"""
from issl import data
from issl.config.plan import load
plan = load({str(PROJECT / "config.yaml")!r}, [{str(tmp_path / "mine.yaml")!r}])["results"]
[spec] = {{row.run.data for row in plan.rows["fig7c"]}}
arrays = data.prepare(spec, "d", progress=False)
print(arrays.classes, arrays.images.shape, sorted(n for n in arrays.meta["code"]["modules"] if "shades" in n))
"""
    done = run(site, "-c", code, cwd=tmp_path)
    assert (
        done.stdout == "['dark', 'light'] (12, 8, 8, 3) ['issl_shades', 'issl_shades.reader', 'issl_shades.settings']\n"
    )


def test_a_kind_of_probe_of_another_package_is_planned_and_found(tmp_path):
    install(tmp_path, "issl-means", "issl.probes", {"means": "issl_means:Means"}, issl_means=MEANS)
    code = """
from issl.probing import kinds
from issl.spec.probe import ProbeGrid
print(ProbeGrid(probes=({"kind": "means"},)).kind, kinds.evaluate("means").__module__)
"""
    assert run(tmp_path, "-c", code).stdout == "means issl_means\n"


@pytest.mark.parametrize(
    ("module", "entry", "words"),
    [
        ("import absent_package\n", "issl_bad:Bad", "ModuleNotFoundError: No module named 'absent_package'"),
        ("raise RuntimeError('at import')\n", "issl_bad:Bad", "RuntimeError: at import"),
        ("Bad = 3\n", "issl_bad:Bad", "issl_bad:Bad must be a class that inherits from issl.spec.objective.Method"),
        ("", "issl_bad:Bad", "AttributeError"),
        (
            "from typing import Literal\nfrom issl.spec.objective import Method\n"
            "class Bad(Method):\n    name: Literal['bad']\n",
            "issl_bad:Bad",
            'issl_bad:Bad lacks implementation = "module:object"',
        ),
    ],
)
def test_a_package_that_cannot_be_used_is_named_and_the_others_go_on(spectral, module, entry, words):
    install(spectral, "issl-bad", "issl.objectives", {"bad": entry}, issl_bad=module)
    done = plan(spectral)
    assert "spectral-z512-e300-" in done.stdout and done.returncode == 0
    [line] = done.stderr.splitlines()
    assert line.startswith("'bad' of issl-bad is left out: ") and words in line


def test_of_two_packages_with_one_name_neither_is_used_and_ours_stay(spectral):
    install(spectral, "issl-other", "issl.objectives", {"spectral": "issl_other:Other", "cissl": "issl_other:Other"})
    done = run(spectral, "-m", "issl", "plan", "fig7c")
    assert "cissl-z512-e1000-" in done.stdout
    assert sorted(done.stderr.splitlines()) == [
        "'cissl' has two meanings, by issl-other: issl's own stays, and that of the package is left out; uninstall one",
        "'spectral' has two meanings, by issl-other and issl-spectral: they are left out; uninstall one",
    ]
    assert plan(spectral).returncode == 1
