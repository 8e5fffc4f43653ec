"""Weights in files: nothing in them is run, and a network gets all of them or none."""

import pickle
from collections import OrderedDict

import pytest
import torch
from harm import Harm
from safetensors.torch import save_file
from torch import nn

from issl.errors import UserError
from issl.models import weights


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))  # 2 + 5 tensors


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.torch"


def saved(content, path, **options):
    torch.save(content, path, **options)
    return path


def refusal(action, *arguments):
    with pytest.raises(UserError) as error:
        action(*arguments)
    line = str(error.value)
    assert "\n" not in line
    return line


# --- reading ---


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before torch 1.6"])
def test_a_state_dict_round_trips(path, new):
    state = network().state_dict()  # an OrderedDict with attributes, as training code saves it
    assert isinstance(state, OrderedDict) and state._metadata
    read = weights.read_torch(saved(state, path, _use_new_zipfile_serialization=new))
    assert list(read) == list(state)
    assert all(torch.equal(read[key], state[key]) for key in state)


def test_safetensors_round_trip_with_their_metadata(tmp_path):
    state = network().state_dict()
    save_file(state, tmp_path / "a.safetensors", metadata={"spec": "{}"})
    tensors, notes = weights.read_safetensors(tmp_path / "a.safetensors")
    assert tensors.keys() == state.keys() and notes == {"spec": "{}"}
    assert all(torch.equal(tensors[key], state[key]) for key in state)
    save_file(state, tmp_path / "b.safetensors")
    assert weights.read_safetensors(tmp_path / "b.safetensors")[1] == {}


@pytest.mark.parametrize("how", ["torch", "torch before 1.6", "pickle"])
def test_a_hostile_file_is_refused_without_running_code(tmp_path, path, how):
    trace = tmp_path / "trace"
    content = {"conv1.weight": torch.zeros(3), "bn1.weight": Harm(trace)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        saved(content, path, _use_new_zipfile_serialization=how == "torch")
    line = refusal(weights.read_torch, path)
    assert line.startswith(f"{path}: ") and "they could run code" in line
    assert not trace.exists()
    if how != "pickle":
        torch.load(path, weights_only=False)
        assert trace.exists()  # the file would have done it


@pytest.mark.parametrize(
    "content",
    [
        {"classy_state_dict": {"base_model": {"conv1.weight": torch.zeros(3)}}},
        {"conv1.weight": [1.0, 2.0]},
        {1: torch.zeros(3)},
        [torch.zeros(3)],
        torch.zeros(3),
        None,
    ],
    ids=["nested", "list inside", "number as name", "list", "tensor", "nothing"],
)
def test_an_object_that_is_not_a_flat_state_dict_is_refused(path, content):
    assert refusal(weights.read_torch, saved(content, path)).startswith(f"{path}: not a flat state dict")


def test_a_damaged_file_is_one_line_for_any_damage(path):
    draws = torch.Generator().manual_seed(0)
    refused = 0
    for new in (True, False):
        whole = saved(network().state_dict(), path, _use_new_zipfile_serialization=new).read_bytes()
        for _ in range(150):
            damaged = bytearray(whole)
            place, length, value = (torch.randint(n, (), generator=draws).item() for n in (len(whole), 40, 256))
            damaged[place : place + length] = bytes([value]) * length
            path.write_bytes(damaged[: len(whole)] if place % 2 else whole[:place])
            try:
                weights.read_torch(path)  # damage that changes nothing but a number is not seen by the old format
            except UserError as error:
                assert str(error).startswith(f"{path}: ")
                refused += 1
    assert refused > 200


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_file_that_holds_no_weights_is_named(tmp_path, content):
    for name, read in (("a.torch", weights.read_torch), ("a.safetensors", weights.read_safetensors)):
        (tmp_path / name).write_bytes(content)
        assert refusal(read, tmp_path / name).startswith(f"{tmp_path / name}: ")
        (tmp_path / name).unlink()
        assert "No such file" in refusal(read, tmp_path / name)


# --- loading ---


def test_all_tensors_are_loaded(path):
    theirs, ours = network(), network()
    for tensor in theirs.state_dict().values():
        tensor.copy_(torch.randint(9, tensor.shape))
    weights.fill(ours, theirs.state_dict(), path)
    assert all(torch.equal(ours.state_dict()[key], tensor) for key, tensor in theirs.state_dict().items())


def without(*keys):
    return {key: tensor for key, tensor in network().state_dict().items() if key not in keys}


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        (without("0.bias"), "1 missing (0.bias)"),
        ({}, "7 missing (0.weight, 0.bias, 1.weight, ...)"),
        (without() | {"fc.weight": torch.zeros(2), "fc.bias": torch.zeros(2)}, "2 surplus (fc.weight, fc.bias)"),
        (without() | {f"x{n}": torch.zeros(2) for n in range(5)}, "5 surplus (x0, x1, x2, ...)"),
        (without() | {"0.weight": torch.zeros(4, 2)}, "1 of another shape (0.weight (4, 2) instead of (4, 3))"),
        (
            without("1.weight") | {"1.gamma": torch.zeros(4), "0.bias": torch.zeros(3)},
            "1 missing (1.weight); 1 surplus (1.gamma); 1 of another shape (0.bias (3,) instead of (4,))",
        ),
    ],
)
def test_a_mismatch_is_counted_and_named_and_nothing_is_loaded(path, tensors, says):
    ours = network()
    before = {key: tensor.clone() for key, tensor in ours.state_dict().items()}
    line = refusal(weights.fill, ours, tensors, path)
    assert line == f"{path}: not the 7 tensors of this encoder: {says}"
    assert all(torch.equal(ours.state_dict()[key], tensor) for key, tensor in before.items())
