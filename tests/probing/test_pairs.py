"""Alignment of two views: closed forms, a slow reference, and the views that a run was trained with."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_hub import PLAIN

from issl import hub
from issl.data.arrays import read
from issl.errors import UserError
from issl.jobs.execution import Execution
from issl.models.encoders import build
from issl.probing import encoders, pairs, spread
from issl.probing.featurize import featurize
from issl.spec.augment import Augment, Crops
from issl.spec.encoding import Encoding
from issl.spec.objective import DISSLMultiCrop
from issl.spec.run import RunSpec, file_notes
from issl.views import augment, decode
from issl.views.random import generator

CPU = torch.device("cpu")
STILL = Augment(min_area=1, jitter=0, hue=0, gray=0, flip_p=0)  # every view is the image itself


@pytest.fixture
def a_run(tmp_path):
    """Writes a run of a small encoder with these settings of views, and returns its folder."""

    def write(data, settings):
        run = RunSpec(data=data, objective=DISSLMultiCrop(name="dissl_multicrop"), encoder=PLAIN, augment=settings)
        folder = tmp_path / "run/s0"
        folder.mkdir(parents=True, exist_ok=True)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = build(PLAIN, data.image_size)
        save_file(network.state_dict(), folder / hub.WEIGHTS, metadata=file_notes(run, 0))
        return folder

    return write


def test_alignment_is_the_mean_over_pairs():
    first, second = torch.randn(2, 17, 4, generator=torch.Generator().manual_seed(0)).double()
    pairs_ = zip(first.numpy(), second.numpy())
    slow = [sum((a / np.linalg.norm(a) - b / np.linalg.norm(b)) ** 2) for a, b in pairs_]
    assert spread.alignment(first, second) == pytest.approx(np.mean(slow), rel=1e-12)


def test_alignment_of_known_arrangements():
    z = torch.tensor([[1.0, 0], [0, 2]])
    assert spread.alignment(z, 3 * z) == pytest.approx(0, abs=1e-12)
    assert spread.alignment(z, -z) == pytest.approx(4)
    assert spread.alignment(z, z.flip(0)) == pytest.approx(2)  # at right angles


def of(folder, encoding, arrays, encode=lambda views: views.flatten(1), workers=0):
    return pairs.of(encoders.augmentation(str(folder)), encoding, arrays, CPU, encode, workers)["alignment"]


def test_views_that_change_nothing_are_aligned(a_run, synthetic_arrays):
    folder, spec = synthetic_arrays
    encoding = Encoding(data=spec, resize=16, crop=16)
    assert of(a_run(spec, STILL), encoding, read(folder)) == pytest.approx(0, abs=1e-9)
    assert of(a_run(spec, Augment()), encoding, read(folder)) > 0.1


def test_it_counts_the_images_whose_views_differ(a_run, synthetic_arrays):
    """An encoder that tells only which half is brighter: mirroring one view alone gives the opposite."""
    (folder, spec), size = synthetic_arrays, 16
    arrays = read(folder)
    images = np.array(arrays.images)
    images[:, :, : size // 2], images[:, :, size // 2 :] = 40, 210
    run = a_run(spec, STILL.model_copy(update={"flip_p": 0.5}))
    halves = lambda views: views.unflatten(-1, (2, -1)).mean((1, 2, 4)) @ torch.tensor([[-1.0], [1.0]])  # noqa: E731
    given = type(arrays)(images, arrays.labels, arrays.meta)
    found = of(run, Encoding(data=spec, resize=16, crop=16), given, halves)
    flips = augment.draw(STILL.model_copy(update={"flip_p": 0.5}), 40, size, size, generator("alignment", 0)).flip
    assert found == pytest.approx(4 * (flips[:20] != flips[20:]).float().mean().item()) and 0 < found < 4


@pytest.mark.parametrize("workers", [0, 2])
def test_photographs_have_the_two_large_views_of_their_run(a_run, listed, encoding, workers):
    folder, spec = listed
    settings = Augment(
        jitter=0, hue=0, gray=0, views=[Crops(number=2, size=40, min_area=0.3), Crops(number=2, size=24, min_area=0.1)]
    )
    arrays, run = read(folder), a_run(spec, settings)
    seen = []
    found = of(run, encoding(), arrays, lambda views: seen.append(views) or views.flatten(1), workers)
    photos = decode.of(arrays, spec)
    slow = []
    for row in range(36, 48):
        photo = photos.pixels(row)
        draws = augment.draw(settings, 2, *photo.shape[:2], generator("alignment", 0, 0, row), (0.3, 1.0))
        views = [decode.crop(photo, box, 40) for box in draws.crop.tolist()]
        views = [view[:, ::-1] if flip else view for view, flip in zip(views, draws.flip.tolist())]
        clean = augment.clean(torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)).flatten(1).double().numpy()
        u, v = (one / np.linalg.norm(one) for one in clean)
        slow.append(((u - v) ** 2).sum())
    assert found == pytest.approx(np.mean(slow), rel=1e-4)
    assert {tuple(views.shape[1:]) for views in seen} == {(3, 40, 40)}


def test_the_record_of_features_has_it(a_run, synthetic_arrays, tmp_path):
    """With the encoder in eval mode, on the test images; the views of chunks are drawn anew."""
    folder, spec = synthetic_arrays
    run, encoding = a_run(spec, Augment(strength=0.5)), Encoding(data=spec, resize=16, crop=16)
    featurize(str(run), encoding, folder, tmp_path / "features", 0, Execution(device="cpu", precision="32"))
    record = json.loads((tmp_path / "features.json").read_text())
    encoder, arrays = hub.load(run), read(folder)
    images = torch.from_numpy(np.array(arrays.images[40:60])).permute(0, 3, 1, 2)
    with torch.no_grad():
        views = augment.two_views(images, Augment(strength=0.5), generator("alignment", 0))
        z = torch.cat([encoder(view[None]) for view in views])
    cosines = torch.nn.functional.cosine_similarity(z[:20], z[20:])
    assert record["alignment"] == pytest.approx((2 - 2 * cosines).mean().item(), rel=1e-3)
    assert record.keys() >= {"rank_me", "uniformity"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{", "weights do not name their run"),
        ('{"augment": {"strenght": 2}}', r"spec\.augment: strenght: unknown key, did you mean 'strength'\?"),
    ],
)
def test_settings_of_views_that_cannot_be_read_are_refused_before_any_work(tmp_path, spec, message):
    save_file({"bn1.running_mean": torch.zeros(64)}, tmp_path / hub.WEIGHTS, metadata={"spec": spec})
    with pytest.raises(UserError, match=message):
        encoders.augmentation(str(tmp_path))


def test_released_weights_have_none(models, listed, encoding, tmp_path):
    featurize("plain", encoding(), listed[0], tmp_path / "features", 0, Execution(device="cpu", precision="32"))
    record = json.loads((tmp_path / "features.json").read_text())
    assert "alignment" not in record and "uniformity" in record


def test_representations_that_overflow_have_none(synthetic_arrays):
    folder, spec = synthetic_arrays
    encoding = Encoding(data=spec, resize=16, crop=16)
    assert pairs.of(Augment(), encoding, read(folder), CPU, lambda views: views.flatten(1) / 0, 0) == {}


def test_the_images_are_a_share_of_the_test_split(a_run, synthetic_arrays, monkeypatch):
    folder, spec = synthetic_arrays
    monkeypatch.setattr(pairs, "IMAGES", 5)
    seen = []
    encoding = Encoding(data=spec, resize=16, crop=16)
    of(a_run(spec, STILL), encoding, read(folder), lambda views: seen.append(views) or views.flatten(1))
    expected = augment.clean(torch.from_numpy(np.array(read(folder).images[[40, 45, 50, 54, 59]])).permute(0, 3, 1, 2))
    torch.testing.assert_close(torch.cat(seen), torch.cat([expected, expected]), atol=1e-4, rtol=0)
