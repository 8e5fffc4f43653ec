"""An index names only files of runs: nothing in it leads elsewhere."""

import json

import pytest

from issl.errors import UserError
from issl.sharing.index import Index, read_index

RUN = "simclr-z64-e9-0123abcd"
FILE = {"size": 1, "sha256": "0" * 64}
COMPLETE = dict.fromkeys(("encoder.safetensors", "history.csv", "run.json"), FILE)


def parsed(runs, version=1):
    return read_index(json.dumps({"version": version, "runs": runs}).encode(), "there/index.json")


def refusal(*arguments):
    with pytest.raises(UserError) as error:
        parsed(*arguments)
    assert str(error.value).startswith("there/index.json: ")
    return str(error.value)


def test_an_index_is_read_as_it_was_written():
    scores = {f"probes/cifar10-0123abcd/linear-0123abcd-s3.{ending}": FILE for ending in ("csv", "json")}
    index = Index().with_seed(RUN, 3, COMPLETE | scores | {"features/cifar10-0123abcd.json": FILE})
    again = read_index(index.text().encode(), "there")
    assert again == index
    assert json.loads(index.text())["runs"][RUN]["3"]["run.json"] == FILE


@pytest.mark.parametrize(
    "name",
    [
        *("../encoder.safetensors", "/etc/passwd", "..", "", "probes/../../x.csv", "encoder.safetensors/../x"),
        *("./run.json", "run.json\n", "probes//linear-0123abcd-s1.csv", "probes\\a-0123abcd\\linear-0123abcd-s1.csv"),
        *("encoder.pt", "checkpoints/last.ckpt", "probes/a-0123abcd/linear-0123abcd-s1.pkl", ".made/run.json"),
        *("C:/run.json", "~/run.json", "%2e%2e/run.json"),
    ],
)
def test_a_name_that_is_no_file_of_a_run_is_refused(name):
    assert "is not a file of a run" in refusal({RUN: {"1": COMPLETE | {name: FILE}}})


@pytest.mark.parametrize("run", ["..", "../x-z1-e1-0123abcd", "/x-z1-e1-0123abcd", "x-z1-e1-0123abc", ""])
def test_a_name_that_is_no_id_is_refused(run):
    assert "is not the id of a run" in refusal({run: {"1": COMPLETE}})


@pytest.mark.parametrize("seed", ["-1", "../1", "one", "1.5"])
def test_a_seed_is_a_number(seed):
    refusal({RUN: {seed: COMPLETE}})


@pytest.mark.parametrize("name", COMPLETE)
def test_a_run_is_complete(name):
    files = {other: FILE for other in COMPLETE if other != name}
    assert f"lacks {name}" in refusal({RUN: {"1": files}})


@pytest.mark.parametrize("wrong", [{"size": -1}, {"sha256": "0" * 63}, {"sha256": "G" * 64}, {"url": "file:///x"}])
def test_a_file_has_a_size_and_a_digest_alone(wrong):
    refusal({RUN: {"1": COMPLETE | {"run.json": FILE | wrong}}})


def test_a_newer_version_says_so():
    assert "has version 2, but this issl reads version 1: update issl" in refusal({}, 2)


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"version": 1, "runs": {', b"\xff\xfe"])
def test_what_is_no_index_is_refused(content):
    with pytest.raises(UserError, match=r"there: "):
        read_index(content, "there")
