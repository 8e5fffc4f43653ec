"""Which code made a result: what counts as code, which modules count, and what changed since."""

import ast
from modulefinder import ModuleFinder
from pathlib import Path

import pytest

import issl
from issl.jobs import fingerprint as fp

FOLDER = Path(issl.__file__).parent


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
    return lambda source: fp.modules("stage", package(start=source))["issl.start"]


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
    assert fp.modules("stage", folder).keys() == {"issl", "issl.start"} | reached


def test_a_package_imports_relative_to_itself_and_a_module_relative_to_its_package(package):
    sub = {"__init__": "from . import x", "x": "from .y import f\nfrom ..a import g", "y": "", "a": ""}
    folder = package(start="import issl.sub", sub=sub, a="", x="", y="")
    expected = {"issl", "issl.start", "issl.sub", "issl.sub.x", "issl.sub.y", "issl.a"}
    assert fp.modules("stage", folder).keys() == expected


def test_imports_are_followed_through_modules_and_cycles(package):
    folder = package(start="import issl.a", a="import issl.b", b="import issl.start", c="import issl.a")
    assert list(fp.modules("stage", folder)) == ["issl", "issl.a", "issl.b", "issl.start"]


def test_imports_of_a_package_count_for_users_of_its_modules(package):
    folder = package(start="from issl.sub.x import f", sub={"__init__": "import issl.a", "x": ""}, a="")
    assert "issl.a" in fp.modules("stage", folder)


def test_a_module_that_is_not_reached_does_not_count(package):
    before = fp.modules("stage", package(start="import issl.a", a="", figures="x = 1"))
    assert fp.modules("stage", package(start="import issl.a", a="", figures="x = 2")) == before


def test_excluded_modules_and_their_own_imports_are_left_out(package):
    sources = {
        "start": "import issl.jobs.logs, issl.a",
        "logs": "import issl.b",
        "a": "import issl.errors",
        "errors": "",
    }
    assert list(fp.modules("stage", package(**sources, b=""))) == ["issl", "issl.a", "issl.start"]


def test_only_the_changed_module_gets_another_digest(package):
    before = fp.modules("stage", package(start="import issl.a", a="x = 1"))
    after = fp.modules("stage", package(start="import issl.a", a="x = 2"))
    assert {name for name in before if before[name] != after[name]} == {"issl.a"}


def test_a_stage_without_a_module_is_an_error(package):
    with pytest.raises(KeyError, match=r"issl\.start"):
        fp.modules("stage", package(a=""))


# --- fingerprints ---


def test_a_fingerprint_covers_names_and_digests_in_any_order():
    one = fp.fingerprint({"issl.a": "00000000", "issl.b": "11111111"})
    assert len(one) == 8
    assert int(one, 16) >= 0
    assert fp.fingerprint({"issl.b": "11111111", "issl.a": "00000000"}) == one
    assert fp.fingerprint({"issl.a": "11111111", "issl.b": "00000000"}) != one
    assert fp.fingerprint({"issl.a": "00000000"}) != one


def test_changed_lists_modified_added_and_removed_modules():
    now = fp.current("probe")
    assert fp.changed(now, "probe") == []
    then = {name: digest for name, digest in now["modules"].items() if name != "issl.views.random"}
    then |= {"issl.probing.heads": "another", "issl.gone": "00000000"}
    assert fp.changed({"modules": then}, "probe") == ["issl.gone", "issl.probing.heads", "issl.views.random"]


def test_a_result_without_a_code_record_is_unknown():
    assert fp.changed(None, "probe") is None
    assert fp.changed({}, "probe") is None
    assert fp.changed({"fingerprint": "00000000"}, "probe") is None


# --- the stages of this project ---


@pytest.mark.parametrize("stage", fp.STAGES)
def test_a_stage_has_the_modules_that_python_imports(stage):
    finder = ModuleFinder(path=[str(FOLDER.parent)], excludes=fp.SILENT)  # reads compiled code; no torch on this path
    for entry in fp.STAGES[stage]:
        finder.import_hook(entry)
    assert fp.modules(stage).keys() == {name for name in finder.modules if name.partition(".")[0] == "issl"}


def test_stages_include_their_main_modules_and_exclude_others():
    stages = {stage: set(fp.modules(stage)) for stage in fp.STAGES}
    assert stages["prepare"] >= {
        "issl.data",
        "issl.data.arrays",
        "issl.data.datasets.cifar10",
        "issl.data.datasets.tinyimagenet",
    }
    assert stages["pretrain"] >= {
        "issl.objectives.dissl",
        "issl.views.augment",
        "issl.models.encoders",
        "issl.models.heads",
        "issl.training.optim",
        "issl.data.arrays",
    }
    assert stages["featurize"] >= {
        "issl.probing.encode",
        "issl.models.encoders",
        "issl.views.augment",
        "issl.data.arrays",
    }
    assert stages["probe"] >= {"issl.probing.heads", "issl.views.random", "issl.data.arrays"}
    assert not stages["probe"] & {
        "issl.training.pretrain",
        "issl.objectives",
        "issl.objectives.dissl",
        "issl.training.optim",
    }
    for found in stages.values():
        assert not found & {"issl.report.figures", "issl.report.tables", "issl.config.plan", "issl.cli", *fp.SILENT}


def test_every_excluded_module_exists():
    for name in fp.SILENT:
        assert FOLDER.parent.joinpath(*name.split(".")).with_suffix(".py").is_file()


def test_no_module_is_imported_by_a_computed_name():
    """It would not be seen."""
    for path in FOLDER.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = {getattr(node, "id", getattr(node, "attr", None)) for node in nodes}
        assert not names & {"import_module", "__import__", "run_module"}, path
