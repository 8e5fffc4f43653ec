"""`issl.fit`: an encoder from images in memory."""

import gc
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import issl
from issl import hub
from issl.errors import UserError
from issl.training.pretrain import Pretraining

SMALL = {"arch": "resnet10", "width": 8}
DISSL = {"name": "dissl", "classes": 16, "hidden": 16, "bottleneck": 8}
QUICK = {"method": DISSL, "encoder": SMALL, "epochs": 2, "optim": {"batch_size": 16}, "device": "cpu"}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def kept(images, tmp_path_factory):
    """An encoder with its folder."""
    folder = tmp_path_factory.mktemp("kept") / "run"
    return issl.fit(images, out=folder, **QUICK), folder


def test_the_folder_is_that_of_a_run_and_gives_the_same_representations(images, kept):
    """The truth is the hub's own way: one PIL image at a time, as its documentation says."""
    fitted, folder = kept
    encoder = hub.load(folder)
    with torch.inference_mode():
        one_by_one = [encoder(encoder.preprocess(Image.fromarray(image))[None])[0].numpy() for image in images]
    z = fitted.transform(images, batch_size=7)
    assert z.shape == (40, 64) and z.dtype == np.float32 and z.std() > 0
    assert np.allclose(z, one_by_one, atol=1e-5)


def test_every_form_of_images_means_the_same(images, kept):
    fitted, _ = kept
    z = fitted.transform(images)
    assert np.array_equal(fitted.transform(torch.from_numpy(images).permute(0, 3, 1, 2)), z)
    assert np.array_equal(fitted.transform([Image.fromarray(image) for image in images]), z)
    grey = images[..., 0]
    in_colours = fitted.transform(np.stack([grey] * 3, axis=-1))
    assert np.array_equal(fitted.transform(grey), in_colours)
    sixteen = [Image.fromarray(image.astype(np.uint16) * 257) for image in grey]
    assert np.array_equal(fitted.transform(sixteen), in_colours)


def test_labels_are_for_monitoring_alone(images, kept):
    fitted, _ = kept
    labelled = issl.fit(images, labels=["ant", "bee"] * 20, **QUICK)
    assert np.array_equal(labelled.transform(images), fitted.transform(images))
    assert not any("online" in name for name in fitted.history)
    assert labelled.history["online_acc"].between(0, 1).all() and len(labelled.history) == 2


def test_seeds_and_settings_change_the_encoder_and_equal_ones_do_not(images, kept):
    fitted, _ = kept
    z = fitted.transform(images)
    assert np.array_equal(issl.fit(images, **QUICK).transform(images), z)
    assert not np.allclose(issl.fit(images, **QUICK, seed=2).transform(images), z)
    assert not np.allclose(issl.fit(images, **QUICK, augment={"strength": 0.5}).transform(images), z)


def test_a_finished_fit_is_not_repeated_and_its_folder_is_not_given_to_another(images, kept):
    _, folder = kept
    written = (folder / "encoder.safetensors").stat().st_mtime_ns
    again = issl.fit(images, out=folder, **QUICK)
    assert (folder / "encoder.safetensors").stat().st_mtime_ns == written and len(again.history) == 2
    with pytest.raises(UserError, match="a finished training with another spec"):
        issl.fit(images, out=folder, **QUICK | {"epochs": 3})
    with pytest.raises(UserError, match="a finished training with another data"):
        issl.fit(255 - images, out=folder, **QUICK)


def test_nothing_of_a_training_stays_in_memory(images):
    """A notebook calls it again and again, and Python itself may collect much later."""
    gc.disable()
    try:
        issl.fit(images, **QUICK)
        assert not [each for each in gc.get_objects() if isinstance(each, Pretraining)]
    finally:
        gc.enable()


def test_settings_that_are_not_given_fit_the_encoder_and_the_images(images):
    fitted = issl.fit(images, method="untrained", encoder="resnet18", device="cpu")
    assert fitted.run.encoder.dim == 512 and fitted.history.empty
    assert (fitted.run.optim.batch_size, fitted.run.optim.warmup_epochs) == (36, 10)
    assert fitted.transform(images[:2]).shape == (2, 512)
    wide = issl.fit(images, method="untrained", encoder={"arch": "resnet10", "width": 16}, device="cpu")
    assert wide.transform(images[:2]).shape == (2, 128)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": lambda x: x / 255}, "images: must be uint8, from 0 to 255, not float64"),
        ({"images": lambda x: x[:, :8]}, "images: 40 of 16 x 8 px; cut squares from them"),
        ({"images": lambda x: x[None]}, "images: must be an array (n, S, S, 3) or (n, S, S)"),
        ({"images": lambda x: x[:2]}, "images: 2 images, 1 of them held out, leave 1 to train on"),
        ({"images": lambda x: [Image.fromarray(each) for each in (x[0], x[0, :8])]}, "must have one size, not 2"),
        ({"labels": [1, 2]}, "labels: must be one for each of the 40 images, not an array (2,)"),
        ({"method": "disl"}, "fit: objective: unknown"),
        ({"method": DISSL | {"clases": 3}}, "fit: objective.clases: unknown key, did you mean 'classes'?"),
        ({"encoder": "resnet19"}, "fit: encoder.arch: "),
        ({"encoder": SMALL | {"dim": 100}}, "needs 'head: expand'"),
        ({"optim": {"batch": 3}}, "fit: optim.batch: unknown key, did you mean 'batch_size'?"),
        ({"optim": {"batch_size": 64}}, "optim.batch_size 64 exceeds the 36 training images"),
        ({"device": "tpu"}, "fit: device: "),
    ],
)
def test_a_mistake_is_one_line_that_names_it(images, change, words):
    change = dict(change)
    given = change.pop("images", lambda x: x)(images)
    with pytest.raises(UserError) as caught:
        issl.fit(given, **QUICK | change)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_an_encoder_of_timm_is_checked_before_it_is_trained(images):
    pytest.importorskip("timm")
    vit = {"arch": "timm/vit_tiny_patch16_224", "dim": 192, "patch": 4}
    fitted = issl.fit(images, encoder=vit, method="untrained", device="cpu")
    assert fitted.transform(images[:2]).shape == (2, 192)
    with pytest.raises(UserError, match="16 px is no multiple of its patches of 5 px"):
        issl.fit(images, encoder=vit | {"patch": 5}, method="untrained", device="cpu")


def test_the_package_itself_imports_nothing_heavy():
    code = "import sys, issl; assert 'torch' not in sys.modules; print(issl.fit.__name__, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "fit True\n"
    with pytest.raises(AttributeError, match="module 'issl' has no attribute 'fits'"):
        issl.fits  # noqa: B018
