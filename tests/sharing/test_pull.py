"""Pulled runs are complete and what they claim to be, or nothing is taken; nothing here is replaced."""

import contextlib
import errno
import hashlib
import json
import os
import pickle
import shutil
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest
from click.testing import CliRunner
from filelock import FileLock
from runs import HOST, Handler, content, finished_run
from safetensors.numpy import load_file, save_file
from web import serving

from issl.cli import issl
from issl.errors import UserError
from issl.sharing.push import push
from issl.spec.run import file_notes, run_id


def call(*arguments):
    done = CliRunner().invoke(issl, list(map(str, arguments)), standalone_mode=False)
    if done.exception:
        raise done.exception
    return done.output


def refusal(*arguments):
    """The message of a pull that must fail and leave nothing."""
    with pytest.raises(UserError) as error:
        call("pull", *arguments)
    assert not Path("results").exists(), "something was left"
    return str(error.value)


def reindexed(published, name):
    """Makes the index of a folder tell the truth about a file that a test has changed."""
    path = next(published.glob(f"runs/*/s1/{name}"))
    index = json.loads((published / "index.json").read_text())
    ((seeds,),) = ([*index["runs"].values()],)
    seeds["1"][name] = {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    (published / "index.json").write_text(json.dumps(index))


def here(run):
    return Path("results/tiny/runs", run.parent.name, run.name)


@pytest.mark.parametrize("kind", ["folder", "web", "hub"])
def test_every_file_arrives_and_a_second_time_there_is_nothing_to_do(kind, run, published, server, monkeypatch):
    source = {"folder": str(published), "web": server.url, "hub": "hf:group/encoders"}[kind]
    if kind == "hub":
        (published / "group/encoders/resolve").mkdir(parents=True)
        (published / "group/encoders/resolve/main").symlink_to(published)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
    said = call("pull", run.parent.name, "--from", source)
    assert said.startswith(f"{here(run)}: pulled 6 files, ") and said.endswith(f" MB, from {source}\n")
    expected, found = content(run), content(here(run))
    del expected["wandb/settings.json"]
    assert found.keys() == expected.keys()
    for name in expected:
        if not name.endswith(".json"):
            assert found[name] == expected[name], name
    record = json.loads(found["run.json"])
    assert record.pop("pulled")["from"] == source
    theirs = json.loads(expected["run.json"])
    assert theirs.pop("host") == theirs["attempts"][0].pop("host") == HOST
    assert record == theirs
    assert (here(run) / ".made/encoder.safetensors").samefile(here(run) / "encoder.safetensors")
    assert call("pull", here(run), "--from", source) == f"{here(run)}: nothing to do, it is here\n"
    assert content(here(run)) == found


def test_one_seed_and_another_results_folder(specs, run, published, tmp_path):
    push([finished_run(tmp_path / "theirs", specs[0], 2)], str(published))
    call("pull", run.parent.name, "--seed", 2, "--from", published, "--preset", "small")
    assert [path.name for path in Path("results/small/runs", run.parent.name).iterdir()] == ["s2"]
    call("pull", f"results/tiny/runs/{run.parent.name}/s1/encoder.safetensors", "--from", published)
    assert [path.name for path in here(run).parent.iterdir()] == ["s1"]


def test_sources_of_the_config_are_asked_in_turn(specs, run, published, tmp_path):
    push([finished_run(tmp_path / "theirs", specs[1])], str(tmp_path / "first"))
    shared = f"shared=[{tmp_path / 'first'}, {published}]"
    assert str(published) in call("pull", run.parent.name, "--config", shared)
    with pytest.raises(UserError, match="add --from, or name some in `shared`"):
        call("pull", run.parent.name)


def test_only_what_is_missing_is_brought(run, published):
    call("pull", run.parent.name, "--from", published)
    shutil.rmtree(here(run) / "probes")
    kept = (here(run) / "run.json").stat().st_mtime_ns
    assert "pulled 2 files" in call("pull", run.parent.name, "--from", published)
    assert (here(run) / "run.json").stat().st_mtime_ns == kept


@pytest.mark.parametrize("name", ["encoder.safetensors", "history.csv", "run.json"])
def test_what_is_here_is_never_replaced(name, run, published):
    call("pull", run.parent.name, "--from", published)
    path = here(run) / name
    path.unlink()  # with a second name in .made
    path.write_bytes((published / "runs" / run.parent.name / "s1" / name).read_bytes().replace(b"2", b"3") + b" ")
    if name == "run.json":
        path.write_text(json.dumps(json.loads(path.read_text()) | {"loss": 1.0}))
    before = content(here(run))
    with pytest.raises(UserError, match=rf"s1: has another {name} than .*, and is kept as it is"):
        call("pull", run.parent.name, "--from", published)
    assert content(here(run)) == before


def test_a_run_that_trains_now_is_left_alone(run, published):
    here(run).mkdir(parents=True)
    with FileLock(here(run) / ".run.lock"), pytest.raises(UserError, match="is being trained now"):
        call("pull", run.parent.name, "--from", published)
    assert not content(here(run))


# --- what a source may have that must not be taken ---


NAMES = ["encoder.safetensors", "history.csv", "run.json", "features/*.json", "probes/*/*.csv", "probes/*/*.json"]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_with_one_changed_byte_is_refused(name, run, published, server):
    (path,) = published.glob(f"runs/*/s1/{name}")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    message = refusal(run.parent.name, "--from", server.url)
    assert message.endswith("has not the SHA-256 of the index: damaged or changed; nothing was taken")
    assert path.name in message


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x"], ids=["short", "long"])
def test_a_file_of_another_size_is_refused(change, run, published, server):
    (path,) = published.glob("runs/*/s1/encoder.safetensors")
    path.write_bytes(change(path.read_bytes()))
    for source in (published, server.url):
        assert f"of {len(path.read_bytes()) + 1} bytes" in (message := refusal(run.parent.name, "--from", source)) or (
            "more than" in message
        )


class Torn(Handler):
    """Closes the connection half-way through the encoder, with the length of all of it announced."""

    def copyfile(self, source, outputfile):
        data = source.read()
        torn = self.path.endswith("encoder.safetensors")
        outputfile.write(data[: len(data) // 2] if torn else data)
        self.close_connection = True


def test_a_torn_download_leaves_nothing_and_the_next_call_succeeds(run, published):
    with serving(partial(Torn, directory=published)) as torn:
        message = refusal(run.parent.name, "--from", torn.url)
    size = (run / "encoder.safetensors").stat().st_size
    assert f"{size // 2} of {size} bytes arrived" in message
    call("pull", run.parent.name, "--from", published)
    assert (here(run) / "encoder.safetensors").read_bytes() == (run / "encoder.safetensors").read_bytes()


def change_record(published, **changes):
    (path,) = published.glob("runs/*/s1/run.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    reindexed(published, "run.json")


def test_settings_that_do_not_hash_to_the_id_are_refused(specs, run, published):
    change_record(published, spec=specs[1].model_dump(mode="json"))
    message = refusal(run.parent.name, "--from", published)
    assert message.endswith(f"run.json: its settings are those of another run, {run_id(specs[1])}")


def test_settings_that_are_none_are_refused(run, published):
    change_record(published, spec={"data": {"kind": "synthetic"}, "objective": {"name": "simcrl"}})
    assert "did you mean 'simclr'?" in refusal(run.parent.name, "--from", published)


def test_another_seed_is_refused(run, published):
    change_record(published, seed=2)
    assert "is of seed 2, not 1" in refusal(run.parent.name, "--from", published)


def test_a_record_of_other_weights_is_refused(run, published):
    change_record(published, encoder_sha256="2" * 64)
    assert "run.json is of other weights" in refusal(run.parent.name, "--from", published)


def test_weights_of_other_settings_are_refused(specs, run, published):
    (path,) = published.glob("runs/*/s1/encoder.safetensors")
    save_file(load_file(path), path, metadata=file_notes(specs[1], 1))
    reindexed(published, "encoder.safetensors")
    assert "its settings are those of another run" in refusal(run.parent.name, "--from", published)


def test_scores_of_other_probes_are_refused(run, published):
    (path,) = published.glob("runs/*/s1/probes/*/*.json")
    record = json.loads(path.read_text())
    record["spec"]["probes"][0]["weight_decay"] = 0.5
    path.write_text(json.dumps(record))
    reindexed(published, path.relative_to(path.parents[2]).as_posix())
    assert "its settings are those of other probes" in refusal(run.parent.name, "--from", published)


class Harmful:
    def __reduce__(self):
        return (os.mkdir, ("executed",))


def test_a_pickle_in_place_of_weights_is_refused_and_not_executed(run, published):
    (path,) = published.glob("runs/*/s1/encoder.safetensors")
    path.write_bytes(pickle.dumps(Harmful()))
    reindexed(published, "encoder.safetensors")
    assert "not a file of safetensors" in refusal(run.parent.name, "--from", published)
    assert not Path("executed").exists()


@pytest.mark.parametrize("linked", ["encoder.safetensors", "."], ids=["file", "folder"])
def test_links_in_a_folder_are_not_followed(linked, run, published, tmp_path):
    path = next(published.glob("runs/*/s1")) / linked
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert "is a link, which is not followed" in refusal(run.parent.name, "--from", published)


def test_the_source_itself_may_be_a_link(run, published, tmp_path):
    (tmp_path / "link").symlink_to(published)
    assert "pulled 6 files" in call("pull", run.parent.name, "--from", tmp_path / "link")


# --- sources ---


def test_a_run_that_the_source_lacks(run, published):
    name = run.parent.name
    message = refusal(f"{name[:-1]}{'0' if name[-1] != '0' else '1'}", "--from", published)
    assert message.endswith(f"did you mean '{name}'?") and message.startswith(f"{published}: has no run")
    assert refusal("nothing", "--from", published).endswith(f"allowed: {name}")
    assert refusal(name, "--seed", 7, "--from", published) == f"{published}: has {name} with seeds 1, not with 7"


def test_a_run_of_no_preset_needs_the_preset(specs, tmp_path):
    other = specs[0].model_copy(update={"optim": specs[0].optim.model_copy(update={"lr": 0.123})})
    push([finished_run(tmp_path / "theirs", other)], str(tmp_path / "published"))
    message = refusal(run_id(other), "--from", tmp_path / "published")
    assert "no preset of this config has this run; add --preset" in message
    assert "pulled 6" in call("pull", run_id(other), "--from", tmp_path / "published", "--preset", "tiny")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "nowhere: no such folder"),
        (".", "has no index.json, so it is no source of runs: `issl push --to` writes one"),
        ("http://127.0.0.1:9", "http://127.0.0.1:9/index.json: cannot be reached ([Errno 111] Connection refused)"),
        ("http://127.0.0.1:9/", "http://127.0.0.1:9/index.json: cannot be reached ([Errno 111] Connection refused)"),
        ("ftp://example.org/runs", "must be a folder, http(s)://... or hf:ORGANISATION/NAME"),
        ("file:///etc", "must be a folder, http(s)://... or hf:ORGANISATION/NAME"),
        ("hf:name", "must be hf:ORGANISATION/NAME, or hf:ORGANISATION/NAME@REVISION"),
        ("hf:../../etc/x", "must be hf:ORGANISATION/NAME, or hf:ORGANISATION/NAME@REVISION"),
    ],
)
def test_a_source_that_is_none_is_one_line(source, message, specs):
    assert message in refusal(run_id(specs[0]), "--from", source)


def test_a_server_without_an_index(run, server, published):
    (published / "index.json").unlink()
    message = refusal(run.parent.name, "--from", server.url)
    assert "the server answers 404 File not found, so it is no source of runs" in message


class Redirecting(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.send_response(302)
        self.send_header("Location", "file:///etc/passwd")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_no_redirect_leads_to_a_file(run):
    with serving(Redirecting) as server:
        assert "file:///etc/passwd" in refusal(run.parent.name, "--from", server.url)


def test_a_place_that_cannot_be_written_is_one_line(run, published):
    Path("results").write_text("")  # permissions do not stop root, whom tests may run as
    with pytest.raises(UserError, match=r"^results/tiny/runs/[^ ]+: cannot be written: Not a directory$"):
        call("pull", run.parent.name, "--from", published)


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC, errno.EROFS], ids=["rights", "space", "read-only"])
@pytest.mark.parametrize("writes", ["tempfile.mkdtemp", "sources.copy"])
def test_an_error_while_files_arrive_is_one_line_and_leaves_nothing(writes, number, run, published, monkeypatch):
    """As raised for a folder without rights, which tests that root runs cannot have."""

    def refused(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(f"issl.sharing.pull.{writes}", refused)
    message = refusal(run.parent.name, "--from", published)
    assert message == f"{here(run)}: cannot be written: {os.strerror(number)}"


def test_a_source_that_may_not_be_read_is_one_line(run, published, monkeypatch):
    opened = Path.open

    def forbidden(path, *arguments, **options):
        if path.name == "index.json":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", forbidden)
    message = refusal(run.parent.name, "--from", published)
    assert message == f"{published}/index.json: cannot be read: Permission denied"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_rights_is_one_line(run, published):
    Path("results").mkdir(mode=0o555)
    with contextlib.closing(contextlib.ExitStack()) as stack, pytest.raises(UserError, match="cannot be written"):
        stack.callback(Path("results").chmod, 0o755)
        call("pull", run.parent.name, "--from", published)
