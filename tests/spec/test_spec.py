"""A run is a value: equal settings have one id, and no default in code changes behind it."""

import json

import pytest
from pydantic import TypeAdapter, ValidationError

from issl.spec import data as data_spec
from issl.spec import probe as probe_spec
from issl.spec import run as run_spec
from issl.spec import value as value_spec
from issl.spec.augment import Augment, Crops
from issl.spec.data import ImageNet, Synthetic
from issl.spec.encoder import Encoder
from issl.spec.objective import CISSL, DINO, DISSL, DISSLMultiCrop, SimCLR
from issl.spec.optim import Optim
from issl.spec.probe import ProbeGrid, ProbeSpec
from issl.spec.run import RunSpec

DATA = Synthetic(kind="synthetic")


def run(**changes) -> RunSpec:
    return RunSpec(**{"data": DATA, "objective": SimCLR(name="simclr"), **changes})


def test_defaults_equal_the_released_code_and_are_frozen():
    """An id leaves defaults out: editing one here would silently give old results new settings."""
    assert Augment().model_dump() == {
        "strength": 1.0,
        "blur": False,
        "min_area": 0.2,
        "jitter": 0.4,
        "hue": 0.1,
        "gray": 0.1,
        "flip_p": 0.5,
        "jitter_p": 0.8,
        "blur_p": 0.5,
        "blur_kernel": "tenth",
        "views": (),
    }
    assert Encoder().model_dump() == {
        "arch": "resnet18",
        "width": 64,
        "head": "none",
        "dim": 512,
        "bottleneck": 512,
        "init": "released",
    }
    assert Optim().model_dump() == {
        "epochs": 300,
        "batch_size": 512,
        "lr": 0.002,
        "weight_decay": 1e-6,
        "warmup_epochs": 10,
        "lr_interval": "epoch",
        "clip_value": 2.0,
        "online_lr": 3e-4,
        "optimizer": "adam",
        "momentum": 0.9,
        "trust": 0.001,
        "cosine": "after_warmup",
        "warmup_lr": 0.0,
        "drop_last": False,
    }
    assert SimCLR(name="simclr").model_dump() == {
        "name": "simclr",
        "temperature": 0.07,
        "hidden": 1024,
        "out": 128,
        "widths": (),
    }
    assert CISSL(name="cissl").model_dump() == {
        "name": "cissl",
        "predictor": "linear",
        "temperature": 0.07,
        "hidden": 1024,
        "mlp_hidden": 2048,
        "out": 128,
        "widths": (),
    }
    assert DISSL(name="dissl").model_dump() == {
        "name": "dissl",
        "predictor": "linear",
        "classes": 16384,
        "student_temperature": 1.0,
        "teacher_temperature": 0.5,
        "entropy_weight": 2.3,
        "invariance_weight": 0.8,
        "hidden": 1024,
        "mlp_hidden": 2048,
        "bottleneck": 512,
    }
    assert DISSLMultiCrop(name="dissl_multicrop").model_dump() == {
        "name": "dissl_multicrop",
        "classes": 16384,
        "student_temperature": 1.0,
        "teacher_temperature": 0.5,
        "entropy_weight": 2.3,
        "invariance_weight": 0.6,
        "invariance_warmup_steps": 0,
        "teacher": "residual",
        "hidden": 2048,
        "bottleneck": 512,
    }
    assert DINO(name="dino").model_dump() == {
        "name": "dino",
        "classes": 1000,
        "student_temperature": 0.1,
        "teacher_temperature": 0.07,
        "teacher_temperature_start": 0.04,
        "temperature_warmup_epochs": 50,
        "center_momentum": 0.9,
        "ema": 0.996,
        "ema_schedule": "full_period",
        "teacher_projector": "independent",
        "normalize": "before_bottleneck",
        "evaluate": "student",
        "freeze_last_layer_epochs": 1,
        "hidden": 1024,
        "bottleneck": 256,
    }
    assert ProbeSpec().model_dump() == {
        "kind": "linear",
        "weight_decay": 1e-6,
        "fraction": 1.0,
        "epochs": 100,
        "batch_size": 512,
        "lr": 0.3,
        "momentum": 0.9,
        "clip_value": 2.0,
        "hidden": 2048,
        "holdout": 0.1,
    }
    assert DATA.model_dump() == {
        "kind": "synthetic",
        "classes": 10,
        "train_per_class": 50,
        "test_per_class": 20,
        "image_size": 32,
        "seed": 0,
    }
    assert data_spec.TinyImageNet(kind="tinyimagenet").model_dump() == {
        "kind": "tinyimagenet",
        "classes": 200,
        "train_per_class": 500,
        "test_per_class": 50,
        "partial": False,
    }
    assert data_spec.ImageNet(kind="imagenet").model_dump() == {
        "kind": "imagenet",
        "name": "imagenet",
        "image_size": 224,
        "classes": None,
        "train_per_class": None,
        "test_per_class": None,
        "corrupt": "stop",
    }


def test_the_id_is_readable_and_ends_in_a_hash_of_non_defaults():
    long = run(objective=CISSL(name="cissl", predictor="mlp"), optim=Optim(epochs=1000))
    assert json.loads(long.canonical()) == {
        "data": {"kind": "synthetic"},
        "objective": {"name": "cissl", "predictor": "mlp"},
        "optim": {"epochs": 1000},
    }
    assert run_spec.run_id(long) == f"cissl_mlp-z512-e1000-{value_spec.short_hash(long.canonical())}"


def test_stating_a_default_does_not_change_the_id():
    assert run_spec.run_id(run()) == run_spec.run_id(run(optim=Optim(epochs=300), augment=Augment(strength=1)))


@pytest.mark.parametrize("said", [300, "300", 300.0])
def test_spellings_of_a_number_give_one_id(said):
    changed = RunSpec.model_validate({"data": DATA, "objective": {"name": "simclr"}, "optim": {"epochs": said}})
    assert run_spec.run_id(changed) == run_spec.run_id(run())


def test_numbers_that_yaml_1_1_reads_as_text_are_numbers():
    assert Optim(lr="2e-3") == Optim(lr=0.002)


@pytest.mark.parametrize(
    "changes",
    [
        {"augment": Augment(strength=2)},
        {"optim": Optim(batch_size=256)},
        {"encoder": Encoder(head="expand")},
        {"objective": SimCLR(name="simclr", temperature=0.1)},
        {"data": Synthetic(kind="synthetic", seed=1)},
    ],
)
def test_every_section_is_part_of_the_identity(changes):
    assert run_spec.run_id(run(**changes)) != run_spec.run_id(run())


def test_the_path_of_a_data_set_is_not_part_of_its_identity():
    here, there = (data_spec.TinyImageNet(kind="tinyimagenet", archive=path) for path in ("a.zip", "b.zip"))
    assert data_spec.data_id(here) == data_spec.data_id(there)
    assert data_spec.data_id(here).startswith("tinyimagenet-")


def test_canonical_json_round_trips():
    changed = run(optim=Optim(epochs=20, lr=1e-3), encoder=Encoder(head="expand", dim=2048))
    assert RunSpec.model_validate_json(changed.canonical()) == changed


def test_the_grid_id_names_its_kinds():
    grid = ProbeGrid(probes=(ProbeSpec(kind="mlp"), ProbeSpec()))
    assert probe_spec.grid_id(grid).startswith("linear-mlp-")


@pytest.mark.parametrize(
    ("model", "content", "says"),
    [
        (Encoder, {"dim": 2048}, "needs 'head: expand'"),
        (Encoder, {"dim": 1000, "head": "expand"}, "multiple of 512"),
        (Encoder, {"arch": "resnet50"}, "resnet50 alone gives 2048"),
        (Optim, {"epochs": 0}, "greater than 0"),
        (Optim, {"epochs": 10}, "exceed warmup_epochs"),
        (Optim, {"weight_decay": -1}, "greater than or equal to 0"),
        (Optim, {"lr": float("nan")}, "finite"),
        (Optim, {"cosine": "whole_run"}, "needs 'lr_interval: step'"),
        (SimCLR, {"name": "simclr", "temperature": 0}, "greater than 0"),
        (Crops, {"number": 2, "size": 8, "min_area": 0.5, "max_area": 0.4}, "min_area 0.5 exceeds max_area 0.4"),
        (Augment, {"views": [{"number": 4, "size": 8, "min_area": 0.5}]}, "must be 2 in number, not 4"),
        (Augment, {"strength": 0.1}, "too weak"),
        (Augment, {"strength": 6}, "too strong"),
        (ProbeSpec, {"fraction": 1.5}, "less than or equal to 1"),
        (Synthetic, {"kind": "synthetic", "classes": 1}, "greater than or equal to 2"),
    ],
)
def test_impossible_values_are_refused(model, content, says):
    with pytest.raises(ValidationError, match=says):
        TypeAdapter(model).validate_python(content)


LARGE, SMALL = Crops(number=2, size=224, min_area=0.14), Crops(number=4, size=96, min_area=0.05, max_area=0.14)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"augment": Augment(views=(LARGE,))}, "goes with data of kind imagenet"),
        ({"data": ImageNet(kind="imagenet")}, "goes with data of kind imagenet"),
        (
            {"data": ImageNet(kind="imagenet"), "augment": Augment(views=(LARGE, SMALL))},
            "simclr takes two views; more go with dissl_multicrop",
        ),
    ],
)
def test_views_that_do_not_fit_the_image_are_refused(changes, says):
    with pytest.raises(ValidationError, match=says):
        run(**changes)


def test_dimensions_below_the_trunks_are_allowed():
    assert Encoder(dim=128, head="expand").dim == 128


@pytest.mark.parametrize(
    "narrow", [{"width": 4, "dim": 32}, {"head": "expand", "bottleneck": 7}, {"head": "expand", "dim": 4}]
)
def test_convolutions_that_crash_on_some_cpus_are_refused(narrow):
    with pytest.raises(ValidationError, match=r"encoder\.\w+ \d is below 8: training on a CPU may crash there"):
        run(encoder=Encoder(**narrow))
