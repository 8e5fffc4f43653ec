"""Which code made a result: what counts as code, which modules count, and what changed since."""

import ast
import shutil
from modulefinder import ModuleFinder
from pathlib import Path

import pytest

import issl
from issl.data.datasets import READERS, synthetic
from issl.jobs import fingerprint as fp
from issl.objectives import OBJECTIVES
from issl.probing import kinds
from issl.spec.data import Synthetic
from issl.spec.objective import DINO
from issl.spec.probe import Linear

FOLDER = Path(issl.__file__).parent

TABLES = {"issl.data.datasets", "issl.objectives", "issl.probing.kinds"}
TABLES |= {"issl.spec.data", "issl.spec.encoder", "issl.spec.objective", "issl.spec.probe"}

# What a job names of tables of alternatives, by its stage.
PARTS = {
    "prepare": ("issl.data.datasets.synthetic", "issl.spec.data:Synthetic"),
    "pretrain": ("issl.objectives.dino", "issl.spec.objective:DINO", "issl.spec.data:Synthetic"),
    "featurize": ("issl.spec.data:Synthetic",),
    "probe": ("issl.probing.heads", "issl.spec.probe:Linear", "issl.spec.data:Synthetic"),
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes modules of a package `issl`, for a stage that starts at issl.start; gives the package's folder."""
    monkeypatch.setitem(fp.STAGES, "stage", ("issl.start",))

    def write(sub=None, **sources):
        within = {f"sub/{name}": source for name, source in (sub or {}).items()}
        for name, source in {"__init__": "", **sources, **within}.items():
            path = tmp_path / "issl" / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        return tmp_path / "issl"

    return write


@pytest.fixture
def digest(package):
    """Digest of a module with the given source."""
    return lambda source: fp.modules("stage", package=package(start=source))["issl.start"]


# --- what counts as code ---

PLAIN = "class A:\n    def f(self, x):\n        return x + 1\n"


@pytest.mark.parametrize(
    "same",
    [
        "# why\nclass A:\n    def f(self, x):\n        return x + 1  # and how\n",
        "'M'\nclass A:\n    'C'\n    def f(self, x):\n        '''F'''\n        return x + 1\n",
        "\n\nclass A:\n\n  def f( self,x, ):\n    return (x\n      +1)\n",
        "__version__ = '2'\n" + PLAIN,
    ],
    ids=["comments", "docstrings", "formatting", "version"],
)
def test_comments_docstrings_and_layout_do_not_count(digest, same):
    assert digest(same) == digest(PLAIN)


def test_a_description_of_a_field_does_not_count_but_its_default_does(digest):
    assert (
        digest("a = Field(1)") == digest("a = Field(1, description='one')") == digest("a = Field(1, description='1')")
    )
    assert digest("a = Field(1, description='one')") != digest("a = Field(2, description='one')")


def test_a_docstring_of_an_asynchronous_function_does_not_count(digest):
    assert digest("async def f():\n    'words'\n    return 1") == digest("async def f():\n    return 1")


def test_a_string_that_is_used_counts(digest):
    assert digest("def f():\n    return 'a'") != digest("def f():\n    return 'b'")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 2"),
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = 1", "x = '1'"),
        ("x = None", "x = 'None'"),
        ("x = []", "x = ()"),
        ("x = a - b", "x = b - a"),
        ("def f(*, a, b=1): ...", "def f(*, a=1, b): ..."),
        ("def f(a, b=1): ...", "def f(a, *, b=1): ..."),
        ("x = {**a, 'b': c}", "x = {'b': c, **a}"),
        ("x = a[:1]", "x = a[1:]"),
        ("@jit\ndef f(): ...", "def f(): ..."),
        ("def f():\n    return", "def f():\n    yield"),
    ],
)
def test_code_that_behaves_differently_counts(digest, one, other):
    assert digest(one) != digest(other)


def test_the_fingerprint_distinguishes_statements_as_ast_dump_does():
    """Every statement of this package: two have the same text here if, and only if, `ast.dump` says so."""
    statements = [
        node
        for path in FOLDER.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assign | ast.Return | ast.Expr | ast.AugAssign)
        and not any(map(fp._is_silent, ast.walk(node)))
    ]
    pairs = {(ast.dump(node), fp._text(node)) for node in statements}
    assert len(pairs) > 500
    assert len(pairs) == len({dump for dump, _ in pairs}) == len({text for _, text in pairs})


def test_an_empty_field_that_another_python_does_not_have_does_not_count():
    """Such as `type_params` of a function, since Python 3.12."""
    function = ast.parse("def f(): return 1").body[0]
    before = fp._text(function)
    del function.decorator_list, function.returns
    assert fp._text(function) == before


# --- which modules count ---


@pytest.mark.parametrize(
    ("statement", "reached"),
    [
        ("import issl.a", {"issl.a"}),
        ("import json, issl.a as b", {"issl.a"}),
        ("import issl.sub.x", {"issl.sub", "issl.sub.x"}),
        ("import issl.sub", {"issl.sub"}),
        ("from issl import a, b", {"issl.a", "issl.b"}),
        ("from issl import VALUE", set()),
        ("from issl.a import f", {"issl.a"}),
        ("from issl.a import *", {"issl.a"}),
        ("from issl.sub import x", {"issl.sub", "issl.sub.x"}),
        ("from issl.sub.x import f", {"issl.sub", "issl.sub.x"}),
        ("from . import a", {"issl.a"}),
        ("from .a import f", {"issl.a"}),
        ("from .sub import x as y", {"issl.sub", "issl.sub.x"}),
        ("def f():\n    from issl import a", {"issl.a"}),
        ("class A:\n    def f(self):\n        if self:\n            import issl.a", {"issl.a"}),
        ("try:\n    import fast\nexcept ImportError:\n    from issl import a as fast", {"issl.a"}),
        ("import json\nfrom other.issl import a", set()),
        ("import a\nfrom a import b", set()),
        ("'import issl.a'", set()),
    ],
)
def test_every_kind_of_import_is_followed(package, statement, reached):
    folder = package(start=statement, a="", b="", sub={"__init__": "", "x": ""}, __init__="VALUE = 1")
    assert fp.modules("stage", package=folder).keys() == {"issl", "issl.start"} | reached


def test_a_package_imports_relative_to_itself_and_a_module_relative_to_its_package(package):
    sub = {"__init__": "from . import x", "x": "from .y import f\nfrom ..a import g", "y": "", "a": ""}
    folder = package(start="import issl.sub", sub=sub, a="", x="", y="")
    expected = {"issl", "issl.start", "issl.sub", "issl.sub.x", "issl.sub.y", "issl.a"}
    assert fp.modules("stage", package=folder).keys() == expected


def test_imports_are_followed_through_modules_and_cycles(package):
    folder = package(start="import issl.a", a="import issl.b", b="import issl.start", c="import issl.a")
    assert list(fp.modules("stage", package=folder)) == ["issl", "issl.a", "issl.b", "issl.start"]


def test_imports_of_a_package_count_for_users_of_its_modules(package):
    folder = package(start="from issl.sub.x import f", sub={"__init__": "import issl.a", "x": ""}, a="")
    assert "issl.a" in fp.modules("stage", package=folder)


def test_a_module_that_is_not_reached_does_not_count(package):
    before = fp.modules("stage", package=package(start="import issl.a", a="", figures="x = 1"))
    assert fp.modules("stage", package=package(start="import issl.a", a="", figures="x = 2")) == before


def test_excluded_modules_and_their_own_imports_are_left_out(package):
    sources = {
        "start": "import issl.jobs.logs, issl.a",
        "logs": "import issl.b",
        "a": "import issl.errors",
        "errors": "",
    }
    assert list(fp.modules("stage", package=package(**sources, b=""))) == ["issl", "issl.a", "issl.start"]


def test_only_the_changed_module_gets_another_digest(package):
    before = fp.modules("stage", package=package(start="import issl.a", a="x = 1"))
    after = fp.modules("stage", package=package(start="import issl.a", a="x = 2"))
    assert {name for name in before if before[name] != after[name]} == {"issl.a"}


def test_a_stage_without_a_module_is_an_error(package):
    with pytest.raises(KeyError, match=r"issl\.start"):
        fp.modules("stage", package=package(a=""))


# --- fingerprints ---


def test_a_fingerprint_covers_names_and_digests_in_any_order():
    one = fp.fingerprint({"issl.a": "00000000", "issl.b": "11111111"})
    assert len(one) == 8
    assert int(one, 16) >= 0
    assert fp.fingerprint({"issl.b": "11111111", "issl.a": "00000000"}) == one
    assert fp.fingerprint({"issl.a": "11111111", "issl.b": "00000000"}) != one
    assert fp.fingerprint({"issl.a": "00000000"}) != one


def test_changed_lists_modified_added_and_removed_modules():
    now = fp.current("probe", "issl.probing.heads")
    assert fp.changed(now, "probe") == []
    then = {name: digest for name, digest in now["modules"].items() if name != "issl.views.random"}
    then |= {"issl.probing.heads": "another", "issl.gone": "00000000"}
    assert fp.changed(now | {"modules": then}, "probe") == ["issl.gone", "issl.probing.heads", "issl.views.random"]


def test_a_part_that_is_gone_or_edited_has_changed():
    now = fp.current("probe", "issl.probing.heads", "issl.spec.probe:Linear")
    assert fp.changed(now, "probe") == []
    edited = now["modules"] | {"issl.spec.probe:Linear": "another"}
    assert fp.changed(now | {"modules": edited}, "probe") == ["issl.spec.probe:Linear"]
    gone = {"issl.spec.probe:Gone": "00000000", "issl.probing.gone": "11111111", "issl.spec.gone:A": "22222222"}
    then = {"modules": now["modules"] | gone, "parts": [*now["parts"], *gone]}
    assert fp.changed(then, "probe") == sorted(gone)


def test_a_result_without_a_code_record_is_unknown():
    assert fp.changed(None, "probe") is None
    assert fp.changed({}, "probe") is None
    assert fp.changed({"fingerprint": "00000000"}, "probe") is None


# --- tables of alternatives ---


@pytest.fixture
def table(package, monkeypatch):
    """Digests of a stage that uses a table, issl.sub, of which it takes a class and a module."""
    monkeypatch.setattr(fp, "SILENT", ("issl.sub", "issl.settings"))
    parts = "issl.settings:B", "issl.sub.x"

    def digests(settings, **sources):
        sub = {"__init__": "from issl.sub import x, y", "x": "", "y": "import issl.other"} | sources
        folder = package(start="from issl import settings, sub", sub=sub, settings=settings, other="", used="")
        return fp.modules("stage", parts, folder)

    return digests


SETTINGS = "class A:\n    a = 1\nclass B:\n    b = 1\nTABLE = A, B"


def test_of_a_table_only_what_is_named_counts(table):
    before = table(SETTINGS)
    assert list(before) == ["issl", "issl.settings:B", "issl.start", "issl.sub.x"]
    assert table("class C: ...\n" + SETTINGS.replace("a = 1", "a = 2") + ", C", y="z = 1", z="z = 2") == before
    edited = table(SETTINGS.replace("b = 1", "b = 2"), x="import issl.used")
    assert {name for name in edited if edited[name] != before.get(name)} == {
        "issl.settings:B",
        "issl.sub.x",
        "issl.used",
    }


def test_comments_and_docstrings_of_a_class_do_not_count(table):
    assert table(SETTINGS.replace("    b = 1", "    'Words.'\n    b = 1  # and more")) == table(SETTINGS)


@pytest.mark.parametrize("change", [("1", "2"), ("x = 1", "x = 1\n    y = 1"), ("(_Base)", "(_Base, A)")])
def test_what_a_class_inherits_counts(table, change):
    source = "class A: ...\nclass _Root:\n    x = 1\nclass _Base(_Root): ...\nclass B(_Base):\n    b = 0"
    before, after = table(source), table(source.replace(*change))
    assert {name for name in after if after[name] != before[name]} == {"issl.settings:B"}


def test_a_part_is_a_class_of_a_table_or_else_a_module():
    assert [fp.part(used) for used in (synthetic.read, Synthetic)] == list(PARTS["prepare"])
    assert [fp.part(used) for used in (OBJECTIVES["dino"], DINO, Synthetic)] == list(PARTS["pretrain"])
    assert [fp.part(used) for used in (kinds.evaluate("linear"), Linear, Synthetic)] == list(PARTS["probe"])


@pytest.fixture
def copied(tmp_path):
    """A copy of this package to edit: each edit replaces a text that occurs once in a file."""
    folder = shutil.copytree(FOLDER, tmp_path / "issl", ignore=shutil.ignore_patterns("__pycache__"))

    def edit(file, *change):
        source = (folder / file).read_text(encoding="utf-8")
        assert source.count(change[0]) == 1, (file, change[0])
        (folder / file).write_text(source.replace(*change), encoding="utf-8")

    edit.folder = folder
    edit.digests = lambda: {stage: fp.modules(stage, parts, folder) for stage, parts in PARTS.items()}
    return edit


def changes(before, after):
    """By stage, the modules that differ."""
    return {
        stage: {name for name in before[stage] | after[stage] if before[stage].get(name) != after[stage].get(name)}
        for stage in before
        if before[stage] != after[stage]
    }


def test_a_new_objective_changes_no_result_of_another(copied):
    before = copied.digests()
    union = "Own = (\n    SimCLR\n"
    settings = 'class NNCLR(Method):\n    name: Literal["nnclr"]\n    support: int = 65536\n\n\n'
    copied("spec/objective.py", union, f"{settings}{union}    | NNCLR\n")
    (copied.folder / "objectives/nnclr.py").write_text("from issl.objectives.base import Objective\n")
    copied(
        "objectives/__init__.py",
        "from issl.objectives.dino import DINO\n",
        "from issl.objectives.dino import DINO\nfrom issl.objectives.nnclr import NNCLR\n",
    )
    copied("objectives/__init__.py", '    "dino": DINO,\n', '    "dino": DINO,\n    "nnclr": NNCLR,\n')
    assert changes(before, copied.digests()) == {}


def test_a_new_kind_of_probe_changes_no_result_of_another(copied):
    before = copied.digests()
    union = "Own = Linear | "
    settings = 'class KNN(Value):\n    kind: Literal["knn"]\n    neighbours: PositiveInt = 20\n\n\n'
    copied("spec/probe.py", union, f"{settings}{union}KNN | ")
    (copied.folder / "probing/knn.py").write_text("from issl.probing.scores import of_one\n")
    copied("probing/kinds.py", '    "linear": ', '    "knn": "issl.probing.knn",\n    "linear": ')
    assert changes(before, copied.digests()) == {}


def test_a_new_data_set_changes_no_result_of_another(copied):
    before = copied.digests()
    settings = 'class SVHN(Value):\n    kind: Literal["svhn"]\n\n\n'
    copied("spec/data.py", "DataSpec = Annotated[\n    ", f"{settings}DataSpec = Annotated[\n    SVHN | ")
    (copied.folder / "data/datasets/svhn.py").write_text("from issl.data.arrays import Content\n")
    copied("data/datasets/__init__.py", "import cifar10, ", "import svhn, cifar10, ")
    copied("data/datasets/__init__.py", '    "cifar10": ', '    "svhn": svhn.read,\n    "cifar10": ')
    assert changes(before, copied.digests()) == {}


@pytest.mark.parametrize(
    ("file", "change", "expected"),
    [
        ("spec/objective.py", ("ema: Probability = Field(0.996", "ema: Probability = Field(0.99"), "DINO"),
        ("objectives/dino.py", ("import torch\n", "import torch, cmath\n"), "issl.objectives.dino"),
        ("objectives/base.py", ("from torch import Tensor", "from torch import Tensor, nan"), "issl.objectives.base"),
    ],
    ids=["default", "module", "base"],
)
def test_an_edit_of_an_objective_changes_its_pretrainings(copied, file, change, expected):
    before = copied.digests()
    copied(file, *change)
    expected = "issl.spec.objective:DINO" if expected == "DINO" else expected
    assert changes(before, copied.digests()) == {"pretrain": {expected}}


@pytest.mark.parametrize(
    ("file", "change", "expected"),
    [
        ("spec/probe.py", ("    epochs: PositiveInt = 100\n    batch_size: PositiveInt = 512", "    x = 1"), "Linear"),
        ("probing/heads.py", ("normal_(0, 0.02", "normal_(0, 0.03"), "issl.probing.heads"),
        ("probing/side_by_side.py", ("SCORED = 2048", "SCORED = 1024"), "issl.probing.side_by_side"),
        ("probing/scores.py", ("min(5, classes)", "min(4, classes)"), "issl.probing.scores"),
    ],
    ids=["default", "module", "loop", "accuracies"],
)
def test_an_edit_of_a_kind_of_probe_changes_its_scores(copied, file, change, expected):
    before = copied.digests()
    copied(file, *change)
    expected = "issl.spec.probe:Linear" if expected == "Linear" else expected
    assert changes(before, copied.digests()) == {"probe": {expected}}


def test_an_edit_of_another_kind_or_objective_changes_nothing(copied):
    before = copied.digests()
    copied("spec/objective.py", "temperature: PositiveFloat = 0.07\n    hidden: PositiveInt = 1024", "x = 1")
    copied("objectives/dissl.py", "import torch\n", "import torch, math\n")
    copied("probing/cached.py", "std=0.02", "std=0.03")
    copied("data/datasets/cifar10.py", "import numpy as np", "import numpy as np, math")
    assert changes(before, copied.digests()) == {}


def test_the_fingerprint_of_the_package_counts_every_module(copied):
    before = fp.of_package(copied.folder)
    assert before == fp.of_package()
    copied("probing/cached.py", "# of LARS", "# of the paper")
    commented = fp.of_package(copied.folder)
    assert commented != before  # of files, not of code: only the comparison, seconds of work, depends on it
    copied("probing/cached.py", "std=0.02", "std=0.03")
    edited = fp.of_package(copied.folder)
    assert edited not in (before, commented)
    (copied.folder / "probing/knn.py").write_text("")
    assert fp.of_package(copied.folder) not in (before, commented, edited)


# --- the stages of this project ---


class Finder(ModuleFinder):
    """Python's own search for what a module imports; reads compiled code, and no torch on this path."""

    def __init__(self, closed):
        words = set(fp.SILENT) - TABLES  # not so much as found
        super().__init__(path=[str(FOLDER.parent)], excludes=words)
        self.closed = closed

    def scan_code(self, code, module):
        if module.__name__ not in self.closed:
            super().scan_code(code, module)

    def of(self, entries):
        for entry in entries:
            self.import_hook(entry)
        return {name for name in self.modules if name.partition(".")[0] == "issl"} - TABLES


@pytest.mark.parametrize("stage", fp.STAGES)
def test_a_stage_has_the_modules_that_python_imports(stage):
    parts = [part for part in PARTS[stage] if ":" not in part]
    found = Finder(closed=TABLES).of([*fp.STAGES[stage], *parts])
    assert fp.modules(stage, parts).keys() == found
    assert fp.modules(stage, PARTS[stage]).keys() == found | {part for part in PARTS[stage] if ":" in part}


@pytest.mark.parametrize("stage", fp.STAGES)
def test_a_stage_with_all_alternatives_has_every_module_that_python_imports(stage):
    """So no module is reached through a table alone, without being one of its alternatives."""
    own = {"pretrain": OBJECTIVES.values(), "probe": map(kinds.evaluate, kinds.KINDS)}.get(stage, ())
    parts = {fp.part(each) for each in (*READERS.values(), *own)}
    every = Finder(closed=()).of([*fp.STAGES[stage], *parts])
    assert fp.modules(stage, parts).keys() | {"issl.spec.value"} == every  # it has ids: no number comes from it


def test_stages_include_their_main_modules_and_exclude_others():
    stages = {stage: set(fp.modules(stage, PARTS[stage])) for stage in fp.STAGES}
    assert stages["prepare"] >= {"issl.data", "issl.data.arrays", "issl.data.datasets.synthetic"}
    assert stages["pretrain"] >= {
        "issl.objectives.dino",
        "issl.objectives.geometry",
        "issl.views.augment",
        "issl.models.encoders",
        "issl.models.heads",
        "issl.training.optim",
        "issl.data.arrays",
    }
    assert stages["featurize"] >= {
        "issl.probing.featurize",
        "issl.probing.encoders",
        "issl.probing.images",
        "issl.models.encoders",
        "issl.views.augment",
        "issl.views.decode",
        "issl.data.arrays",
    }
    assert stages["probe"] >= {
        "issl.probing.heads",
        "issl.probing.side_by_side",
        "issl.probing.subsets",
        "issl.probing.scores",
        "issl.views.random",
        "issl.data.arrays",
    }
    assert not stages["prepare"] & {"issl.data.datasets.cifar10", "issl.views.augment"}
    assert not stages["pretrain"] & {"issl.objectives.dissl", "issl.objectives.contrastive", "issl.probing.heads"}
    assert not stages["featurize"] & {"issl.training.pretrain", "issl.objectives.dino", "issl.probing.heads"}
    assert not stages["probe"] & {
        "issl.training.pretrain",
        "issl.objectives.dissl",
        "issl.training.optim",
        "issl.models.encoders",
        "issl.probing.cached",
        "issl.probing.classifiers",
    }
    for found in stages.values():
        assert not found & {"issl.report.figures", "issl.report.tables", "issl.config.plan", "issl.cli", *fp.SILENT}


def test_every_excluded_module_exists():
    for name in fp.SILENT:
        path = FOLDER.parent.joinpath(*name.split("."))
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def test_only_tables_of_alternatives_import_by_a_computed_name():
    """It would not be seen. What a table imports, a job names as its part."""
    tables = {FOLDER / name for name in ("probing/kinds.py", "spec/plugins.py", "__init__.py")}
    for path in FOLDER.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = {getattr(node, "id", getattr(node, "attr", None)) for node in nodes}
        computed = names & {"import_module", "__import__", "run_module"}
        assert computed == ({"import_module"} if path in tables else set()), path
    assert [fp.part(kinds.evaluate(kind)) for kind in kinds.KINDS] == list(kinds.KINDS.values())
