"""Counted operations equal published counts and closed forms."""

import json

import pytest
from torchvision.models import ResNet18_Weights, ResNet50_Weights

from issl.planning import flops
from issl.spec.encoder import ResNet, Timm
from issl.spec.shape import Shape


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(flops, "CACHE", tmp_path / "flops.json")
    return tmp_path / "flops.json"


@pytest.mark.parametrize(("arch", "weights"), [("resnet18", ResNet18_Weights), ("resnet50", ResNet50_Weights)])
def test_an_image_costs_what_torchvision_says(arch, weights):
    """Its table counts a multiply-add as one, in 10^9, and has a classifier besides."""
    published = weights.IMAGENET1K_V1.meta["_ops"]
    dim = {"resnet18": 512, "resnet50": 2048}[arch]
    found = flops.of_image(Shape(arch=arch, dim=dim), 224) / 2e9
    assert found == pytest.approx(published - 1000 * dim / 1e9, abs=0.002)


def test_an_image_costs_what_the_paper_of_the_vit_says():
    """Of ViT-S/16 (Touvron et al. 2021): 4.6 10^9 multiply-adds, here in a closed form."""
    pytest.importorskip("timm")
    tokens, width = 197, 384
    block = tokens * 12 * width**2 + 2 * tokens**2 * width  # projections and MLP; products with keys and with values
    expected = 12 * block + 196 * 768 * width
    found = flops.of_image(Timm(arch="timm/vit_small_patch16_224", dim=width), 224) / 2
    assert found == pytest.approx(expected, rel=1e-3) and round(found / 1e9, 1) == 4.6


def test_a_step_of_an_encoder_of_timm_is_counted(make_run):
    pytest.importorskip("timm")
    vit = {"arch": "timm/test_vit", "dim": 64, "patch": 8}
    run = make_run("simclr")
    run = run.model_copy(update={"encoder": Timm(**vit)})
    batch, size = run.optim.batch_size, run.data.image_size
    image = flops.of_image(Timm(**vit), size)
    assert 2 * batch * 2.5 * image < flops.of_step(run) < 2 * batch * 3.5 * image


def test_a_step_costs_three_times_its_forward_pass_less_the_gradient_of_the_images(make_run):
    """Of every product the gradients of both factors are taken, but for the images themselves."""
    run = make_run("supervised", objective={"classes": 4})
    batch, size = run.optim.batch_size, run.data.image_size
    stem = 2 * 3 * 9 * run.encoder.width * size**2  # 3x3 convolution of 3 channels, stride 1
    head = 2 * run.encoder.dim * 4
    image = flops.of_image(ResNet(**run.encoder.model_dump()), size)
    assert flops.of_step(run) == pytest.approx(2 * batch * (3 * image - stem) + 3 * head * 2 * batch, rel=0.01)


METHODS = ["simclr", "cissl", "dissl", "dino", "dcl", "barlow_twins", "vicreg", "wmse", "lejepa", "byol", "simsiam"]


@pytest.mark.parametrize("method", [*METHODS, "moco_v3", "swav"])
def test_a_larger_head_costs_more(make_run, method):
    small, large = (make_run(method, objective={"hidden": hidden}) for hidden in (32, 256))
    assert flops.of_step(large) > flops.of_step(small) > 0


def test_four_views_cost_twice_as_much_as_two(make_run):
    """But for the whitening's own products, which are few."""
    two, four = (make_run("wmse", augment={"number": number}) for number in (2, 4))
    assert flops.of_step(four) == pytest.approx(2 * flops.of_step(two), rel=0.01)


def test_a_count_is_kept_for_the_next_call(make_run, cache, monkeypatch):
    first = flops.of_step(make_run())
    monkeypatch.setattr(flops, "_of_step", None)  # not callable
    assert flops.of_step(make_run()) == first
    assert list(json.loads(cache.read_text()).values()) == [first]
    assert flops.of_step(make_run(optim={"epochs": 7, "lr": 0.3})) == first  # of no matter for a step


def test_a_folder_that_cannot_be_written_costs_only_time(make_run, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(flops, "CACHE", tmp_path / "file/flops.json")
    assert flops.of_step(make_run()) > 0
