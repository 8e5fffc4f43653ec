"""What a training sees of photographs: this rank's share, in order, whatever the chunks, from any step on."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from issl import data
from issl.data.arrays import read
from issl.errors import UserError
from issl.jobs import distributed
from issl.spec.run import RunSpec
from issl.views import augment, decode, loader
from issl.views.random import epoch_order

CPU = torch.device("cpu")
LARGE, SMALL = {"number": 2, "size": 24, "min_area": 0.14}, {"number": 3, "size": 12, "min_area": 0.05}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for split, name in itertools.product(("train", "val"), ("n01", "n02")):
        (root / split / name).mkdir(parents=True)
        for k in range(11 if split == "train" else 5):
            small = Image.fromarray(random.integers(0, 256, (4, 5, 3), np.uint8))
            small.resize((50 + k, 40), Image.Resampling.BICUBIC).save(root / split / name / f"{k:02d}.JPEG")
    return root


@pytest.fixture(scope="module")
def run(folder):
    return RunSpec.model_validate(
        {
            "data": {"kind": "imagenet", "image_size": 28, "path": str(folder)},
            "objective": {"name": "dissl_multicrop"},
            "augment": {"blur": True, "blur_kernel": "pillow", "views": [LARGE, SMALL]},
            "encoder": {"arch": "resnet10", "width": 8, "dim": 64},
            "optim": {"epochs": 3, "batch_size": 8, "warmup_epochs": 1, "drop_last": True},
        }
    )


@pytest.fixture(scope="module")
def arrays(run, tmp_path_factory):
    return data.prepare(run.data, tmp_path_factory.mktemp("list"), progress=False)


def source(run, arrays, workers=0):
    return loader.of(run, 1, arrays, CPU, 8, workers)


def same(a, b):
    return torch.equal(a.labels, b.labels) and all(torch.equal(x, y) for x, y in zip(a.views, b.views, strict=True))


def test_monitoring_takes_test_images_in_the_order_of_the_arrays(synthetic, make_run):
    """So by class, as the released code does; figure 7b depends on it, because the others of a batch are negatives."""
    arrays = read(synthetic)
    found = [labels for _, labels in loader.of(make_run(), 1, arrays, CPU, 8, 0).pairs(2)]
    assert len(found) == 1 and found[0].tolist() == [0] * 8 + [1] * 8 + [2] * 8 + [3] * 8
    small = make_run(optim={"epochs": 3, "batch_size": 12, "warmup_epochs": 1})
    found = [labels.tolist() for _, labels in loader.of(small, 1, arrays, CPU, 8, 0).pairs(2)]
    assert found == [[0] * 8 + [1] * 4, [1] * 4 + [2] * 8, [3] * 8]


def test_an_epoch_has_whole_batches_of_all_images(run, arrays):
    steps = list(source(run, arrays).steps(0, 0))
    assert len(steps) == 3 * 2  # 22 images in batches of 8
    for views, labels in steps:
        assert [tuple(group.shape) for group in views] == [(16, 3, 24, 24), (24, 3, 12, 12)]
        assert labels.shape == (8,)
        assert all(group.is_contiguous(memory_format=torch.channels_last) for group in views)
    rows = torch.cat(loader.order(run, 1, 0, 22))
    assert torch.cat([labels for _, labels in steps[:2]]).tolist() == arrays.labels[rows].tolist()


def test_a_view_is_the_crop_of_its_image_recoloured(run, arrays):
    (large, small), _ = next(source(run, arrays).steps(1, 1))
    rows = loader.order(run, 1, 1, 22)[1].tolist()
    listed = decode.of(arrays, run.data)
    for place, row in enumerate(rows):
        ((mine, tiny),) = decode.crops(listed, run.augment, [decode.CropRequest([row], "augment", 1, 1)], workers=0)
        for group, own in ((large, mine), (small, tiny)):
            crops = own.images[:, 0]
            expected = augment.normalize(augment.color_and_blur(crops, own.draws, "pillow"))
            torch.testing.assert_close(group[place::8], expected)


@pytest.mark.parametrize(("chunk", "workers"), [(3, 0), (5, 2)])
def test_chunks_processes_and_the_first_step_do_not_change_the_views(run, arrays, monkeypatch, chunk, workers):
    whole = list(source(run, arrays).steps(0, 0))
    pairs = list(source(run, arrays).pairs(1))
    monkeypatch.setattr(decode, "CHUNK", chunk)
    parts = list(source(run, arrays, workers).steps(1, 1))
    assert len(parts) == 3 and all(map(same, whole[3:], parts))
    assert all(map(same, pairs, source(run, arrays, workers).pairs(1)))


def test_ranks_share_the_batch_of_one_process(run, arrays, monkeypatch):
    whole = next(source(run, arrays).steps(0, 0))
    (pair, *_) = source(run, arrays).pairs(0)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        views, labels = next(source(run, arrays).steps(0, 0))
        own = slice(4 * rank, 4 * rank + 4)
        assert torch.equal(labels, whole.labels[own])
        for ours, all_of_them in zip(views, whole.views, strict=True):
            torch.testing.assert_close(ours.unflatten(0, (-1, 4)), all_of_them.unflatten(0, (-1, 8))[:, own])
        ((clean_and_augmented,), _) = next(source(run, arrays).pairs(0))
        torch.testing.assert_close(clean_and_augmented.unflatten(0, (2, 4)), pair.views[0].unflatten(0, (2, 8))[:, own])


def test_test_images_are_clean_beside_a_large_view(run, arrays):
    pairs = list(source(run, arrays).pairs(2))
    assert [len(labels) for _, labels in pairs] == [8, 2]
    assert torch.cat([labels for _, labels in pairs]).tolist() == [0] * 5 + [1] * 5
    (views,), _ = pairs[0]
    assert views.shape == (16, 3, 24, 24)
    listed = decode.of(arrays, run.data)
    clean = decode.central_square(listed.pixels(22), round(24 * 256 / 224), 24)
    torch.testing.assert_close(views[0], augment.normalize(torch.from_numpy(clean.copy()).permute(2, 0, 1)[None])[0])
    again = list(source(run, arrays).pairs(1))
    assert torch.equal(again[0].views[0][:8], views[:8]) and not torch.equal(again[0].views[0][8:], views[8:])


def test_a_batch_that_cannot_be_shared_is_refused(run, arrays, monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    monkeypatch.setattr(distributed, "rank", lambda: 0)
    with pytest.raises(UserError, match="a batch of 8 images cannot be split equally among 3 processes"):
        next(source(run, arrays).steps(0, 0))


def test_the_last_batch_is_dropped_only_on_request():
    kept, dropped = (epoch_order("order", 1, 0, 22, 8, drop_last) for drop_last in (False, True))
    assert [len(rows) for rows in kept] == [8, 8, 6] and [len(rows) for rows in dropped] == [8, 8]
    assert all(map(torch.equal, kept, dropped))
    assert [len(rows) for rows in epoch_order("order", 1, 0, 24, 8, True)] == [8] * 3
