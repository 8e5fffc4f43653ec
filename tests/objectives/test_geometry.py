"""The monitored cosines against loops, and where their values are known."""

import math

import numpy as np
import pytest
import torch

from issl.objectives.geometry import Geometry


def slow(z: np.ndarray, running: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
    """One call in train mode, by loops over pairs of images; also the running mean it leaves."""
    images, unit = len(z) // 2, []
    for view in (z[:images], z[images:]):
        mean = view.mean(0)
        centred = view - (0.5 * mean + 0.5 * running)
        running = 0.9 * running + 0.1 * mean
        unit.append([row / math.sqrt(row @ row) for row in centred])
    cosine = [[a @ b for b in unit[1]] for a in unit[0]]
    pos = sum(cosine[i][i] for i in range(images)) / images
    neg = sum(cosine[i][j] for i in range(images) for j in range(images) if i != j) / (images * (images - 1))
    return {"cosine_pos": pos, "cosine_neg": neg, "dist_to_etf": 1 - pos + neg}, running


def test_statistics_equal_loops_over_images():
    geometry, running = Geometry(6), np.zeros(6)
    draws = np.random.default_rng(0)
    for _ in range(3):
        z = draws.uniform(size=(10, 6))
        expected, running = slow(z, running)
        values = geometry(torch.from_numpy(z))
        assert {name: value.item() for name, value in values.items()} == pytest.approx(expected, rel=1e-9)
        np.testing.assert_allclose(geometry.running.numpy(), running, rtol=1e-12)
    assert geometry.running.dtype == torch.float64


def test_equiangular_images_form_a_simplex():
    """Views that coincide and images at equal angles: cosines 1 and -1/(B-1)."""
    simplex = torch.eye(4) - 0.25
    values = Geometry(4)(torch.cat([simplex, simplex]))
    assert values["cosine_pos"].item() == pytest.approx(1)
    assert values["cosine_neg"].item() == pytest.approx(-1 / 3)


def test_eval_mode_keeps_the_running_mean():
    geometry = Geometry(3).eval()
    geometry(torch.rand(8, 3))
    assert not geometry.running.any()


def test_statistics_survive_a_state_dict_and_half_precision():
    torch.manual_seed(0)
    geometry, other = Geometry(3), Geometry(3)
    z = torch.rand(8, 3, requires_grad=True)
    geometry(z)
    other.load_state_dict(geometry.state_dict())
    torch.testing.assert_close(other(z), geometry(z), rtol=0, atol=0)
    for value in geometry(z.bfloat16()).values():
        assert value.dtype == torch.float32 and value.shape == () and not value.requires_grad


def test_a_single_image_has_no_negatives():
    values = Geometry(3)(torch.rand(2, 3))
    assert values["cosine_neg"] == 0 and values["cosine_pos"].isfinite()


def test_odd_rows_are_refused():
    with pytest.raises(ValueError, match="5 rows cannot be two views"):
        Geometry(3)(torch.rand(5, 3))
