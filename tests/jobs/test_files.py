"""Files appear whole or not at all, and errors are one line."""

import json
import os
import signal
import stat
import subprocess
import sys

import pytest
from project import PROJECT

from issl.errors import UserError, nearest
from issl.jobs.files import whole, write_json, write_text


class Killed(BaseException):
    """Stands for an end that nobody handles, such as Ctrl-C."""


@pytest.fixture
def umask():
    """Sets the umask for one test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


# --- whole ---


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "scores.csv"
    with whole(path) as temporary:
        temporary.write_text("a,b\n")
        assert not path.exists()
        assert temporary.parent == tmp_path  # the same file system, or renaming would copy
        assert temporary.suffix == ".csv"  # savetxt, savefig and the like go by it
    assert path.read_text() == "a,b\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Killed])
def test_an_error_leaves_no_file(tmp_path, error):
    with pytest.raises(error), whole(tmp_path / "scores.csv") as temporary:
        temporary.write_text("a,")
        raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Killed])
def test_an_error_leaves_the_older_file_unchanged(tmp_path, error):
    path = tmp_path / "scores.csv"
    path.write_text("old")
    with pytest.raises(error), whole(path) as temporary:
        temporary.write_text("new, but not all of")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_older_file_is_replaced_not_overwritten(tmp_path):
    """Whoever has the older file open, or mapped, keeps reading the older content."""
    path = tmp_path / "features.npy"
    path.write_text("old")
    with path.open() as reader:
        write_text(path, "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    path = tmp_path / "meta.json"
    with whole(path) as first:
        with whole(path) as second:
            second.write_text("second")
            first.write_text("first, and longer")
        assert path.read_text() == "second"
    assert path.read_text() == "first, and longer"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o002])
def test_a_file_has_the_usual_permissions(tmp_path, umask, mask):
    umask(mask)
    (tmp_path / "ordinary").write_text("")
    write_text(tmp_path / "ours", "")
    ours, ordinary = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "ordinary"))
    assert ours == ordinary
    assert os.umask(mask) == mask, "the umask of the process is not what it was"


def test_parent_folders_are_created(tmp_path):
    write_text(tmp_path / "runs/a/s1/run.txt", "x")
    assert (tmp_path / "runs/a/s1/run.txt").read_text() == "x"


WRITER = """
import sys
from pathlib import Path
from issl.jobs.files import whole

with whole(sys.argv[1]) as temporary, temporary.open("w") as file:
    file.write("half of the ")
    file.flush()
    print("writing", flush=True)
    sys.stdin.read()  # until the end
    file.write("content")
"""


@pytest.mark.parametrize("older", [None, "old"], ids=["no older file", "an older file"])
def test_a_process_killed_while_writing_leaves_no_torn_file(tmp_path, older):
    path = tmp_path / "history.csv"
    if older is not None:
        path.write_text(older)
    line = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT) as child:
        assert child.stdout.readline() == "writing\n"
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert (path.read_text() if path.exists() else None) == older

    (left,) = set(tmp_path.iterdir()) - {path}
    assert left.name.startswith("."), "what is left would be taken for a result"
    write_text(path, "whole")
    assert path.read_text() == "whole"
    assert set(tmp_path.iterdir()) == {path, left}


@pytest.mark.parametrize("write", [write_text, write_json])
def test_an_unwritable_path_is_one_line_that_names_it(tmp_path, write):
    (tmp_path / "file").write_text("not a folder")
    for place in (tmp_path / "file/x.json", tmp_path / "file/deeper/x.json"):
        with pytest.raises(UserError) as caught:
            write(place, "x")
        assert str(caught.value).startswith(f"{place.parent}: cannot write results here: ")
        assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "not a folder"


# --- write_json, write_text ---


def test_json_is_readable_and_keeps_every_value(tmp_path):
    content = {"run": "cissl-z512", "acc": 0.458, "none": None, "words": "Größe ± β", "list": [1, 2]}
    write_json(tmp_path / "run.json", content)
    text = (tmp_path / "run.json").read_text(encoding="utf-8")
    assert json.loads(text) == content
    assert "Größe ± β" in text and text.startswith('{\n  "run"') and text.endswith("}\n")


def test_an_object_that_is_not_json_writes_nothing(tmp_path):
    (tmp_path / "run.json").write_text("{}\n")
    with pytest.raises(TypeError):
        write_json(tmp_path / "run.json", {"fine": 1, "a path": tmp_path})
    assert (tmp_path / "run.json").read_text() == "{}\n"
    assert list(tmp_path.iterdir()) == [tmp_path / "run.json"]


def test_text_is_utf_8_in_every_locale(tmp_path):
    """A cluster's nodes may be set to ASCII or Latin-1, and tables have a ± in them."""
    code = "import sys; from issl.jobs.files import write_text; write_text(sys.argv[1], '\\u03b2 \\xb1')"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    line = [sys.executable, "-c", code, str(tmp_path / "table.md")]
    subprocess.run(line, check=True, cwd=PROJECT, env=environment)
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == "β ±"


# --- errors ---


def test_an_error_for_people_is_one_line():
    assert str(UserError("a  b\n  c\td\n")) == "a b c d"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("dmi", "did you mean 'dim'?"),
        ("dims", "did you mean 'dim'?"),
        ("epoch", "did you mean 'epochs'?"),
        ("zzz", "allowed: dim, epochs, width"),
        ("", "allowed: dim, epochs, width"),
        (3, "allowed: dim, epochs, width"),
    ],
)
def test_the_nearest_name_is_suggested_or_else_all_are_listed(name, says):
    assert nearest(name, ["width", "dim", "epochs"]) == says


def test_suggestions_cope_with_no_names_and_with_numbers():
    assert nearest("a", []).startswith("allowed:")
    assert nearest(100, {10, 1000}) == "did you mean '1000'?"
