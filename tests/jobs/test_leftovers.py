"""Results that no rule makes are found, and nothing else is."""

import os

import pytest

from issl.jobs.leftovers import leftovers, size


@pytest.fixture
def results(tmp_path):
    """A results folder; the fixture's function puts files of one byte each into it."""

    def write(*paths):
        for path in paths:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text("x")
        return tmp_path

    return write


@pytest.fixture
def unreadable(monkeypatch):
    """Makes folders of a name unreadable, even for root."""
    scandir = os.scandir

    def forbid(name):
        def refusing(path="."):
            if os.path.basename(path) == name:  # noqa: PTH119
                raise PermissionError(13, "Permission denied", str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refusing)

    return forbid


def test_outputs_of_rules_are_not_leftovers(results):
    made = ["fig.csv", "runs/a/s1/encoder.safetensors", "runs/a/s1/probes/p.csv"]
    assert leftovers(results(*made), made, []) == []


def test_leftover_files_beside_outputs_are_listed_one_by_one(results):
    root = results("fig.csv", "old.csv", "runs/a/run.json", "runs/a/old.json")
    assert leftovers(root, {"fig.csv", "runs/a/run.json"}, []) == ["old.csv", "runs/a/old.json"]


def test_a_folder_without_outputs_is_one_entry_at_the_highest_level(results):
    root = results("runs/a/s1/run.json", "runs/a/s2/run.json", "runs/a/s2/probes/p.csv", "runs/b/s1/run.json", "x/y/z")
    assert leftovers(root, {"runs/a/s1/run.json"}, []) == ["runs/a/s2/", "runs/b/", "x/"]


def test_a_folder_with_an_outputs_name_as_prefix_is_a_leftover(results):
    root = results("runs/a/run.json", "runs/ab/run.json", "run/a.json")
    assert leftovers(root, {"runs/a/run.json"}, []) == ["run/", "runs/ab/"]


def test_a_folder_with_pending_outputs_is_not_listed_as_a_whole(results):
    assert leftovers(results("runs/a/old.csv"), {"runs/a/run.json"}, []) == ["runs/a/old.csv"]


def test_everything_below_a_declared_folder_is_kept(results):
    root = results("runs/a/checkpoints/last.ckpt", "runs/a/checkpoints/deep/er/state", "runs/b/checkpoints/last.ckpt")
    assert leftovers(root, {"runs/a/checkpoints/"}, []) == ["runs/b/"]


def test_folders_of_other_presets_are_kept(results):
    root = results("tiny/fig.csv", "tiny/deep/er/old", "tinier/fig.csv")
    assert leftovers(root, [], {"tiny", "small"}) == ["tinier/"]


def test_a_folder_that_contains_another_preset_is_not_listed(results):
    root = results("presets/tiny/fig.csv", "presets/old/fig.csv")
    assert leftovers(root, [], {"presets/tiny"}) == ["presets/old/"]


def test_hidden_files_and_empty_folders_do_not_count(results):
    root = results(".snakemake_timestamp", "runs/a/.encoder.x1.safetensors", ".cache/x", "runs/.hidden/x")
    (root / "empty/in/empty").mkdir(parents=True)
    assert leftovers(root, [], []) == []


def test_a_missing_root_has_no_leftovers(tmp_path):
    assert leftovers(tmp_path / "none", {"fig.csv"}, []) == []


def test_a_root_that_is_a_link_works(results, tmp_path_factory):
    root = results("fig.csv", "old/x")
    link = tmp_path_factory.mktemp("elsewhere") / "results"
    link.symlink_to(root)
    assert leftovers(link, {"fig.csv"}, []) == ["old/"]
    assert size(link, "old/") == 1


def test_links_below_the_root_are_not_followed(results, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "run.json").write_text("x")
    (elsewhere / "other").write_text("x")
    root = results("fig.csv")
    (root / "runs").symlink_to(elsewhere)  # on another disk, but where rules write
    (root / "old").symlink_to(elsewhere)
    (root / "broken").symlink_to(elsewhere / "none")
    (root / "circle").symlink_to(root)
    assert leftovers(root, {"fig.csv", "runs/run.json"}, []) == ["broken", "circle", "old"]


def test_a_file_in_place_of_a_folder_is_a_leftover(results):
    assert leftovers(results("runs"), {"runs/a/run.json"}, []) == ["runs"]


def test_an_unreadable_folder_is_listed(results, unreadable):
    root = results("a/locked/x", "a/made", "b/locked/x", "mine/locked/x")
    unreadable("locked")
    assert leftovers(root, {"a/made", "a/locked/made", "mine/locked/"}, []) == ["a/locked/", "b/"]


def test_an_unreadable_root_is_listed(results, unreadable):
    root = results("x")
    unreadable(root.name)
    assert leftovers(root, [], []) == ["./"]


def test_folders_are_read_once_and_no_deeper_than_needed(results, monkeypatch):
    """That is what keeps 100 000 files quick."""
    made = [f"runs/r{i}/s1/run.json" for i in range(20)]
    root = results(*made, *(f"old/r{i}/s{j}/run.json" for i in range(20) for j in range(5)), "tiny/a/b/c")
    read, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: read.append(str(path)) or scandir(path))
    assert leftovers(root, made, {"tiny"}) == ["old/"]
    assert len([path for path in read if "/old" not in path]) == 1 + 1 + 2 * 20
    assert len([path for path in read if "/old" in path]) == 3
    assert len(set(read)) == len(read)


def test_the_size_of_a_folder_includes_all_its_files(results):
    root = results("old/a", "old/deep/er/b", "old/.hidden")
    (root / "old/a").write_bytes(b"x" * 1000)
    assert size(root, "old/") == 1000 + 1 + 1
    assert size(root, "old/a") == 1000
    assert size(root, "./") == 1002


def test_the_size_of_a_link_excludes_its_target(results, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "big").write_bytes(b"x" * 100_000)
    root = results("old/a")
    (root / "old/folder").symlink_to(elsewhere)
    (root / "old/file").symlink_to(elsewhere / "big")
    (root / "link").symlink_to(elsewhere)
    for entry in ("old/", "link"):
        assert size(root, entry) < 10_000


def test_a_missing_path_has_size_zero(tmp_path):
    assert size(tmp_path, "gone") == size(tmp_path, "gone/") == 0
