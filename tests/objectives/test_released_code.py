"""The objectives against the authors' loss modules, through the values that these computed: tests/golden/README.md."""

import hashlib
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from issl import objectives
from issl.objectives.base import Clock, Objective, Terms
from issl.spec.objective import CISSL, DINO, DISSL, ObjectiveSpec, SimCLR

FOLDER = Path(__file__).parents[1] / "golden"
DIM = 24
SMALL_DISSL = {"name": "dissl", "classes": 32, "bottleneck": 12}
METHODS: dict[str, ObjectiveSpec] = {  # every other setting is the default
    "simclr": SimCLR(name="simclr", hidden=20, out=16),
    "cissl": CISSL(name="cissl", hidden=20, out=16),
    "cissl_mlp": CISSL(name="cissl", predictor="mlp", mlp_hidden=20, out=16),
    "dissl": DISSL(**SMALL_DISSL, hidden=20),
    "dissl_cosine": DISSL(**SMALL_DISSL, hidden=20, heads="cosine"),
    "dissl_mlp": DISSL(**SMALL_DISSL, predictor="mlp", mlp_hidden=20),
    "dissl_mlp_cosine": DISSL(**SMALL_DISSL, predictor="mlp", mlp_hidden=20, heads="cosine"),
    "dino": DINO(name="dino", classes=32, hidden=20, bottleneck=12),
}
every_method = pytest.mark.parametrize("method", METHODS)

# What the released code calls the parts of an objective, and its terms, if not as we do.
PARTS = {
    **{"projector": "projector", "predictor": "predictor"},
    **{"teacher_projector": "teacher_proj", "teacher_encoder": "teacher_encoder", "center": "center"},
}
TERMS = {"CE_distill_aug": "log_loss", "fit_pMlz_qMlz": "log_loss"}
SETTINGS = ("n_negatives", "temperature")  # constants that the released code logs too


def read_golden(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file. Raises ValueError if its SHA-256 is not the one in SHA256SUMS."""
    lines = (FOLDER / "SHA256SUMS").read_text().splitlines()
    digests = {name: digest for digest, name in map(str.split, lines)}
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != digests.get(path.name):
        raise ValueError(f"{path}: its SHA-256, {found[:8]}..., is not the one in SHA256SUMS; restore the file")
    with np.load(path) as file:
        return dict(file)


def filled(content: ObjectiveSpec, golden: dict[str, np.ndarray]) -> Objective:
    """The objective in float64, with the file's weights."""
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, DIM), nn.BatchNorm1d(DIM), nn.ReLU())
    objective = objectives.build(content, DIM, encoder).double()
    state = {ours: torch.from_numpy(golden[f"state.{theirs}"]) for ours, theirs in names(objective, golden).items()}
    objective.load_state_dict(state)
    return objective


def names(objective: Objective, golden: dict[str, np.ndarray]) -> dict[str, str]:
    """The released name of each of our tensors: in both codes, the layers of a part have the same order."""
    theirs = [key.removeprefix("state.") for key in golden if key.startswith("state.")]
    found: dict[str, str] = {}
    for our_part, their_part in PARTS.items():
        ours = [key for key in objective.state_dict() if key.split(".")[0] == our_part]
        found |= zip(ours, [key for key in theirs if key.split(".")[0] == their_part], strict=True)
    assert len(found) == len(theirs)
    return found


def forward(objective: Objective, golden: dict[str, np.ndarray], z: torch.Tensor) -> Terms:
    views = torch.from_numpy(golden.get("views", np.zeros((len(z), 3, 1, 1))))
    return objective(z, views, Clock(epoch=int(golden.get("epoch", 0)), epochs=300, step=0, steps_per_epoch=196))


def close(found: torch.Tensor, expected: np.ndarray) -> None:
    """Equal but for rounding in float64; the gradient of a bias before a BatchNorm is nothing else."""
    rounding = 1e-12 * np.abs(expected).max() + 1e-14
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-12, atol=rounding)


@every_method
def test_the_loss_and_every_term_equal_the_released_codes(method):
    golden = read_golden(FOLDER / f"{method}.npz")
    loss, logs = forward(filled(METHODS[method], golden), golden, torch.from_numpy(golden["z"]))
    close(loss, golden["loss"])
    theirs = {key.removeprefix("log."): value for key, value in golden.items() if key.startswith("log.")}
    settings = {name: theirs.pop(name) for name in SETTINGS if name in theirs}
    renamed = {TERMS.get(name, name): value for name, value in theirs.items()}
    if settings:
        renamed["log_loss"] = golden["loss"]  # they do not log it a second time
        assert settings["temperature"] == METHODS[method].temperature
        assert logs["hat_H_m"].item() == pytest.approx(math.log(settings["n_negatives"]), rel=1e-12)
    assert logs.keys() == renamed.keys()
    for name, value in renamed.items():
        close(logs[name], value)


@every_method
def test_the_gradients_equal_the_released_codes(method):
    golden = read_golden(FOLDER / f"{method}.npz")
    objective, z = filled(METHODS[method], golden), torch.from_numpy(golden["z"]).requires_grad_()
    forward(objective, golden, z).loss.backward()
    close(z.grad, golden["grad_z"])
    theirs, trained = names(objective, golden), []
    for name, parameter in objective.named_parameters():
        if parameter.grad is not None:
            close(parameter.grad, golden[f"grad.{theirs[name]}"])
            trained.append(f"grad.{theirs[name]}")
    assert sorted(trained) == sorted(key for key in golden if key.startswith("grad."))


@every_method
def test_the_statistics_after_a_step_equal_the_released_codes(method):
    """Running means and variances, and DINO's centre; counts of batches are not in the files."""
    golden = read_golden(FOLDER / f"{method}.npz")
    objective, z = filled(METHODS[method], golden), torch.from_numpy(golden["z"])
    # The released code passes SimCLR's rows twice through its one head, which moves the statistics twice.
    for _ in range(2 if method == "simclr" else 1):
        forward(objective, golden, z)
    theirs, found = names(objective, golden), []
    for name, buffer in objective.named_buffers():
        if not name.endswith("num_batches_tracked"):
            close(buffer, golden[f"after.{theirs[name]}"])
            found.append(f"after.{theirs[name]}")
    assert sorted(found) == sorted(key for key in golden if key.startswith("after."))


def test_a_golden_file_with_another_hash_is_refused(tmp_path):
    path = Path(shutil.copy(FOLDER / "dino.npz", tmp_path))
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ValueError, match=r"^.*dino\.npz: its SHA-256, [0-9a-f]{8}\.\.\., is not the one in SHA256SUMS"):
        read_golden(path)


def test_every_golden_file_is_used():
    assert {path.stem for path in FOLDER.glob("*.npz")} == set(METHODS)
