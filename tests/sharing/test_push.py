"""Pushed runs are what pull reads, say nothing of this machine, and stay as they are."""

import errno
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from unittest.mock import create_autospec

import pytest
import yaml
from huggingface_hub import HfApi
from huggingface_hub.repocard_data import model_index_to_eval_results
from runs import GRID, HOST, content, finished_run

from issl.errors import UserError
from issl.sharing import push as module
from issl.sharing.push import push
from issl.spec.probe import grid_id
from issl.spec.run import run_id

NAMES = ("README.md", "CITATION.cff", "SHA256SUMS", "index.json")


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("[!.]*")}


def refusal(runs, to):
    before = content(Path(to)) if Path(to).is_dir() else None
    with pytest.raises(UserError) as error:
        push(runs, str(to))
    assert before is None or content(Path(to)) == before, "something was written"
    return str(error.value)


def test_a_folder_has_the_files_and_their_digests(run, published):
    name, found = run.parent.name, content(published)
    for path, data in content(run).items():
        if not path.endswith(".json"):
            assert found[f"runs/{name}/s1/{path}"] == data, path
    assert {path for path in found if not path.startswith("runs/")} == {*NAMES}
    assert len(found) == 6 + 4
    done = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=published, capture_output=True)
    assert done.returncode == 0 and done.stdout.count(b": OK") == 7


def test_neither_machines_nor_other_files_are_published(run, published):
    everything = b"".join(content(published).values())
    assert HOST.encode() in (run / "run.json").read_bytes() and HOST.encode() not in everything
    assert b"secret" not in everything and str(run).encode() not in everything and b"/home/" not in everything


@pytest.mark.parametrize("path", ["/home/ada/images", "~/images", "C:\\images", "\\\\server\\images"])
def test_a_record_with_a_path_of_this_machine_is_refused(path, run, tmp_path):
    record = json.loads((run / "run.json").read_text())
    record["attempts"][0]["cache"] = {"folders": [path]}
    (run / "run.json").write_text(json.dumps(record))
    message = refusal([run], tmp_path / "new")
    assert f"run.json: attempts.0.cache.folders.0 is a path of this machine, {path}" in message


def test_pushing_the_same_again_changes_nothing(run, published):
    before = times(published)
    assert push([run], str(published)) == 0
    assert times(published) == before


def test_other_runs_seeds_and_scores_are_added(specs, run, published, tmp_path):
    (published / "CITATION.cff").write_text("authors: [mine]\n")
    kept = content(published)
    more = [finished_run(tmp_path / "more", specs[1]), finished_run(tmp_path / "more", specs[0], 2)]
    new = run / "probes" / "other-01234567"
    new.mkdir()
    for path in (run / "probes").glob("synthetic-*/*"):
        (new / path.name).write_bytes(path.read_bytes())
    assert push([*more, run], str(published)) == 6 + 6 + 2
    index = json.loads((published / "index.json").read_text())["runs"]
    assert {name: [*seeds] for name, seeds in index.items()} == {run.parent.name: ["1", "2"], run_id(specs[1]): ["1"]}
    assert len(index[run.parent.name]["1"]) == 8
    found = content(published)
    assert {name for name in kept if found[name] != kept[name]} == {"README.md", "SHA256SUMS", "index.json"}


def test_what_is_published_stays(run, published):
    (run / "history.csv").write_text("epoch,loss\n1,1.5\n")
    message = refusal([run], published)
    assert f"has {run.parent.name} s1 with another history.csv, and what is published stays" in message


def test_a_run_that_was_pulled_is_the_same_run(run, published):
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"pulled": {"from": "/here/published", "at": "now"}}))
    assert push([run], str(published)) == 0


@pytest.mark.parametrize("name", ["encoder.safetensors", "history.csv", "run.json"])
def test_an_unfinished_run_is_refused(name, run, tmp_path):
    (run / name).unlink()
    assert f"it has no {name}" in refusal([run], tmp_path / "new")


def test_a_record_of_other_settings_is_refused(specs, run, tmp_path):
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"spec": specs[1].model_dump(mode="json")}))
    assert "its settings are those of another run" in refusal([run], tmp_path / "new")


def test_a_folder_with_something_else_is_left_alone(run, tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project/README.md").write_text("mine")
    assert "is no folder of published runs" in refusal([run], tmp_path / "project")
    (tmp_path / "file").write_text("mine")
    assert "is no folder of published runs" in refusal([run], tmp_path / "file")
    assert "cannot write results here" in refusal([run], tmp_path / "file/below")


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("write", ["whole", "write_text"], ids=["file", "index"])
def test_a_full_disk_leaves_what_was_published_and_nothing_else(write, specs, run, published, tmp_path, monkeypatch):
    monkeypatch.setattr(module, write, full)
    more = finished_run(tmp_path / "more", specs[1])
    for place in (published, tmp_path / "new"):
        assert refusal([more], place) == f"{place}: cannot be read or written: No space left on device"
        assert not (place / "runs" / run_id(specs[1])).exists()
    assert not content(tmp_path / "new")


def test_a_full_disk_leaves_no_half_of_an_archive(run, tmp_path, monkeypatch):
    path = tmp_path / "archives/runs.zip"
    path.parent.mkdir()
    with monkeypatch.context() as disk:
        disk.setattr(zipfile.ZipFile, "writestr", full)
        assert refusal([run], path) == f"{path}: cannot be read or written: No space left on device"
    assert not [*path.parent.iterdir()]
    assert push([run], str(path)) == 6


def test_a_run_that_may_not_be_read_is_one_line(run, tmp_path, monkeypatch):
    def forbidden(path, *_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(module.records, "shareable", forbidden)
    message = refusal([run], tmp_path / "new")
    assert message.startswith(f"{run}/") and message.endswith(": cannot be read or written: Permission denied")


def test_an_index_that_is_a_folder_is_one_line(run, published):
    (published / "index.json").unlink()
    (published / "index.json").mkdir()
    assert refusal([run], published) == f"{published}/index.json: is not a file"


# --- card and citation ---


def test_the_card_has_the_results_where_the_hub_looks_for_them(specs, run, published, tmp_path):
    """Means of two seeds, by hand; read by the hub's own package."""
    push([finished_run(tmp_path / "theirs", specs[0], 2, [(0.52, 0.2), (0.48, 0.3)])], str(published))
    _, front, text = (published / "README.md").read_text().split("---\n", 2)
    front = yaml.safe_load(front)
    name, results = model_index_to_eval_results(front["model-index"])
    assert (name, front["license"]) == (run.parent.name, "mit")
    found = {result.metric_name: result.metric_value for result in results}
    assert found == {"top-1, val-selected": 46.0, "top-1, test-selected": 51.0}
    assert {result.dataset_type for result in results} == {"synthetic"}
    assert f"| {grid_id(GRID)} | 100 | top-1 | 2 | 46.0 | 51.0 |" in text


def test_a_run_without_scores_has_a_card(run, tmp_path):
    for path in (run / "probes").rglob("*.*"):
        path.unlink()
    push([run], str(tmp_path / "new"))
    assert "No probe has scored them." in (tmp_path / "new/README.md").read_text()


def test_the_citation_has_what_the_format_demands(published):
    found = yaml.safe_load((published / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= found.keys()
    assert found["references"][0]["authors"][0]["family-names"] == "Dubois"


# --- archive ---


def test_an_archive_has_the_same_files_and_equal_bytes_for_equal_content(run, published, tmp_path):
    first, second = tmp_path / "first.zip", tmp_path / "second.zip"
    assert push([run], str(first)) == 6
    os.utime(run / "run.json", (0, 0))
    push([run], str(second))
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert content(tmp_path / "unpacked") == content(published)


def test_an_archive_is_added_to(specs, run, tmp_path):
    path = tmp_path / "runs.zip"
    push([run], str(path))
    before = path.stat().st_mtime_ns
    assert push([run], str(path)) == 0 and path.stat().st_mtime_ns == before
    assert push([finished_run(tmp_path / "more", specs[1])], str(path)) == 6
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == 2 * 6 + 4
    path.write_bytes(b"no archive")
    assert "cannot be read" in refusal([run], path)


# --- the hub ---


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub as a folder, behind the signatures of its own package; `hub.repository` is the folder."""
    api = create_autospec(HfApi, instance=True)
    api.repository = tmp_path / "repository"
    api.repository.mkdir()

    def download(repo_id, *, local_dir, allow_patterns, **_):
        assert not any("safetensors" in pattern for pattern in allow_patterns)
        for path in api.repository.rglob("*.*"):
            if path.suffix in (".json", ".csv", ".cff"):
                target = Path(local_dir, path.relative_to(api.repository))
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())

    def upload(*, repo_id, folder_path, ignore_patterns, **_):
        assert ignore_patterns == [".*"]
        for name, data in content(Path(folder_path)).items():
            (api.repository / name).parent.mkdir(parents=True, exist_ok=True)
            (api.repository / name).write_bytes(data)

    api.snapshot_download.side_effect, api.upload_folder.side_effect = download, upload
    monkeypatch.setattr(module, "_api", lambda: api)
    return api


def test_the_hub_gets_the_same_files_in_one_commit(specs, run, published, hub, tmp_path):
    assert push([run], "hf:group/encoders") == 6
    hub.create_repo.assert_called_once_with("group/encoders", exist_ok=True)
    (call,) = hub.upload_folder.call_args_list
    assert call.kwargs["repo_id"] == "group/encoders" and call.kwargs["commit_message"] == "6 files of 1 runs"
    assert content(hub.repository) == content(published)
    assert push([run], "hf:group/encoders") == 0
    assert hub.upload_folder.call_count == 1, "the same again is no commit"
    more = [finished_run(tmp_path / "more", specs[1])]
    push(more, "hf:group/encoders")
    push(more, str(published))
    assert content(hub.repository) == content(published)


def test_an_answer_of_the_hub_is_one_line(run, hub):
    hub.create_repo.side_effect = OSError("401 Client Error: Unauthorized\n\nmore")
    assert refusal([run], "hf:group/encoders") == (
        "hf:group/encoders: 401 Client Error: Unauthorized; `hf auth login` logs in"
    )


def test_without_the_package_the_command_that_installs_it_is_named(run, monkeypatch):
    monkeypatch.setattr(module.packages, "installed", lambda name: name != "huggingface_hub")
    message = refusal([run], "hf:group/encoders")
    assert (
        message.startswith("hf:group/encoders: needs a package: ") and "pip install" in message and "[hub]" in message
    )


@pytest.mark.parametrize("to", ["hf:encoders", "hf:group/encoders@v1", "http://example.org/runs", "s3://bucket"])
def test_a_place_that_cannot_be_pushed_to_is_one_line(to, run):
    assert refusal([run], to).startswith(f"{to}: must be ")


def test_neither_pulling_nor_folders_need_the_hubs_package(run, tmp_path):
    script = (
        "import sys; sys.modules['huggingface_hub'] = None\n"
        "from pathlib import Path; from issl.sharing.push import push; from issl.sharing.sources import index_of\n"
        f"push([Path({str(run)!r})], 'new'); index_of('new')\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
