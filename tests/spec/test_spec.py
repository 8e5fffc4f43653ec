"""A run is a value: equal settings have one id, and no default in code changes behind it."""

import dataclasses
import importlib
import json
import pkgutil

import pytest
from pydantic import TypeAdapter, ValidationError

from issl import spec
from issl.spec import data as data_spec
from issl.spec import probe
from issl.spec import run as run_spec
from issl.spec import value as value_spec
from issl.spec.augment import Augment, Crops
from issl.spec.data import ImageNet, Synthetic
from issl.spec.encoder import ResNet, Timm
from issl.spec.encoding import Encoding
from issl.spec.objective import (
    BYOL,
    CISSL,
    DCL,
    DINO,
    DISSL,
    WMSE,
    BarlowTwins,
    DISSLMultiCrop,
    LeJEPA,
    Method,
    MoCoV3,
    SimCLR,
    SimSiam,
    Supervised,
    SwAV,
    Untrained,
    VICReg,
)
from issl.spec.optim import Optim
from issl.spec.run import RunSpec
from issl.spec.shape import Shape

DATA = Synthetic(kind="synthetic")


def run(**changes) -> RunSpec:
    return RunSpec(**{"data": DATA, "objective": SimCLR(name="simclr"), **changes})


FROZEN = [
    (
        Augment(),
        {
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
            "number": 2,
            "views": (),
        },
    ),
    (
        ResNet(),
        {
            "arch": "resnet18",
            "width": 64,
            "head": "none",
            "dim": 512,
            "bottleneck": 512,
            "init": "released",
        },
    ),
    (
        Timm(arch="timm/resnet34", dim=512),
        {"arch": "timm/resnet34", "head": "none", "dim": 512, "bottleneck": 512, "patch": None, "pool": None},
    ),
    (
        Optim(),
        {
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
        },
    ),
    (
        SimCLR(name="simclr"),
        {
            "name": "simclr",
            "temperature": 0.07,
            "hidden": 1024,
            "out": 128,
            "widths": (),
        },
    ),
    (
        CISSL(name="cissl"),
        {
            "name": "cissl",
            "predictor": "linear",
            "temperature": 0.07,
            "hidden": 1024,
            "mlp_hidden": 2048,
            "out": 128,
            "widths": (),
        },
    ),
    (
        DISSL(name="dissl"),
        {
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
            "heads": "released",
        },
    ),
    (
        DISSLMultiCrop(name="dissl_multicrop"),
        {
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
        },
    ),
    (
        DINO(name="dino"),
        {
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
        },
    ),
    (BYOL(name="byol"), {"name": "byol", "ema": 0.996, "hidden": 4096, "out": 256}),
    (
        SimSiam(name="simsiam"),
        {"name": "simsiam", "layers": 3, "hidden": 2048, "out": 2048, "bottleneck": 512},
    ),
    (
        MoCoV3(name="moco_v3"),
        {"name": "moco_v3", "temperature": 1.0, "ema": 0.99, "heads": "resnet", "hidden": 4096, "out": 256},
    ),
    (
        SwAV(name="swav"),
        {
            "name": "swav",
            "prototypes": 3000,
            "temperature": 0.1,
            "epsilon": 0.05,
            "sinkhorn_iterations": 3,
            "freeze_prototypes_epochs": 1,
            "queue": 0,
            "queue_start_epoch": 15,
            "hidden": 2048,
            "out": 128,
        },
    ),
    (
        DCL(name="dcl"),
        {
            "name": "dcl",
            "temperature": 0.1,
            "weighted": False,
            "sigma": 0.5,
            "hidden": 1024,
            "out": 128,
        },
    ),
    (
        BarlowTwins(name="barlow_twins"),
        {
            "name": "barlow_twins",
            "redundancy": 0.0051,
            "scale": 1.0,
            "hidden": 8192,
            "out": 8192,
        },
    ),
    (
        VICReg(name="vicreg"),
        {
            "name": "vicreg",
            "invariance": 25.0,
            "variance": 25.0,
            "covariance": 1.0,
            "hidden": 8192,
            "out": 8192,
        },
    ),
    (
        WMSE(name="wmse"),
        {
            "name": "wmse",
            "size": 128,
            "iterations": 1,
            "epsilon": 1e-6,
            "hidden": 1024,
            "out": 64,
        },
    ),
    (
        LeJEPA(name="lejepa"),
        {
            "name": "lejepa",
            "sigreg_weight": 0.05,
            "slices": 1024,
            "t_max": 3.0,
            "points": 17,
            "hidden": 2048,
            "out": 128,
        },
    ),
    (
        DATA,
        {
            "kind": "synthetic",
            "classes": 10,
            "train_per_class": 50,
            "test_per_class": 20,
            "image_size": 32,
            "seed": 0,
        },
    ),
    (
        data_spec.TinyImageNet(kind="tinyimagenet"),
        {
            "kind": "tinyimagenet",
            "classes": 200,
            "train_per_class": 500,
            "test_per_class": 50,
            "image_size": 64,
            "partial": False,
        },
    ),
    (
        data_spec.ImageNet(kind="imagenet"),
        {
            "kind": "imagenet",
            "name": "imagenet",
            "image_size": 224,
            "classes": None,
            "train_per_class": None,
            "test_per_class": None,
            "corrupt": "stop",
        },
    ),
    (Crops(number=2, size=8, min_area=0.5), {"number": 2, "size": 8, "min_area": 0.5, "max_area": 1.0}),
    (data_spec.Cifar10(kind="cifar10"), {"kind": "cifar10"}),
    (
        data_spec.ImageFolder(kind="folder", name="own", image_size=8),
        {"kind": "folder", "name": "own", "image_size": 8},
    ),
    (
        data_spec.Torchvision(kind="torchvision", name="dtd"),
        {
            "kind": "torchvision",
            "name": "dtd",
            "image_size": None,
            "split": {"train": {}, "test": {}, "unlabelled": None},
        },
    ),
    (
        data_spec.HuggingFace(kind="huggingface", name="own", image_size=8),
        {
            "kind": "huggingface",
            "name": "own",
            "image_size": 8,
            "repo": None,
            "revision": None,
            "subset": None,
            "image": "image",
            "label": "label",
            "split": {"train": "train", "test": "test", "unlabelled": None},
        },
    ),
    (data_spec.HuggingFaceSplits(), {"train": "train", "test": "test", "unlabelled": None}),
    (data_spec.TorchvisionSplits(), {"train": {}, "test": {}, "unlabelled": None}),
    (
        Encoding(data=DATA),
        {
            "data": DATA.model_dump(),
            "resize": 256,
            "crop": 224,
            "layer": "output",
            "batch_norm": "eval",
            "batch_size": 128,
        },
    ),
    (
        probe.Linear(kind="linear"),
        {
            "kind": "linear",
            "weight_decay": 1e-6,
            "fraction": 1.0,
            "epochs": 100,
            "batch_size": 512,
            "lr": 0.3,
            "momentum": 0.9,
            "clip_value": 2.0,
            "holdout": 0.1,
        },
    ),
    (
        probe.MLP(kind="mlp"),
        {
            "kind": "mlp",
            "weight_decay": 1e-6,
            "fraction": 1.0,
            "epochs": 100,
            "batch_size": 512,
            "lr": 0.3,
            "momentum": 0.9,
            "clip_value": 2.0,
            "holdout": 0.1,
            "hidden": 2048,
        },
    ),
    (
        probe.Cached(kind="cached"),
        {
            "kind": "cached",
            "optimizer": "sgd",
            "lr": 0.1,
            "weight_decay": 1e-6,
            "batch_norm": False,
            "batch_size": 2048,
            "epochs": 100,
            "momentum": 0.9,
            "holdout": 0.02,
        },
    ),
    (
        probe.Augmented(kind="augmented"),
        {
            "kind": "augmented",
            "epochs": 28,
            "batch_size": 1024,
            "lr": 0.01,
            "milestones": (8, 16, 24),
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "min_area": 0.08,
            "holdout": 0.02,
        },
    ),
    (
        probe.FineTuned(kind="fine_tuned"),
        {
            "kind": "fine_tuned",
            "fraction": 0.01,
            "epochs": 60,
            "batch_size": 256,
            "lr": 0.05,
            "momentum": 0.9,
            "min_area": 0.08,
            "holdout": 0.1,
        },
    ),
    *(
        (
            model(kind=kind),
            {
                "kind": kind,
                "draws": 10,
                "lowest": 1e-4,
                "highest": 100.0,
                "holdout": 0.1,
                "max_iter": 1000,
                "tol": 1e-3,
            },
        )
        for model, kind in ((probe.Logistic, "logistic"), (probe.SVM, "svm"))
    ),
    (
        probe.KNN(kind="knn"),
        {"kind": "knn", "k": 200, "temperature": 0.07, "distance": "cosine", "holdout": 0.1},
    ),
    (Supervised(name="supervised", classes=2), {"name": "supervised", "classes": 2}),
    (Untrained(name="untrained"), {"name": "untrained"}),
    (
        run(),
        {
            "data": DATA.model_dump(),
            "objective": SimCLR(name="simclr").model_dump(),
            "augment": Augment().model_dump(),
            "encoder": ResNet().model_dump(),
            "optim": Optim().model_dump(),
        },
    ),
]


@pytest.mark.parametrize(("value", "defaults"), FROZEN, ids=lambda value: type(value).__name__)
def test_defaults_equal_the_released_code_and_are_frozen(value, defaults):
    """An id leaves defaults out: editing one here would silently give old results new settings."""
    assert value.model_dump() == defaults


def test_every_value_that_has_defaults_is_frozen():
    for module in pkgutil.iter_modules(spec.__path__):
        importlib.import_module(f"issl.spec.{module.name}")
    named = {each for each in subclasses(value_spec.Value) if each.__module__.startswith("issl.spec.")}
    named = {each for each in named if not each.__name__.startswith("_")}
    assert {type(value) for value, _ in FROZEN} == named - {probe.ProbeGrid, Method, data_spec.DataSet}
    assert all(field.is_required() for field in probe.ProbeGrid.model_fields.values())


def subclasses(model):
    return {below for each in model.__subclasses__() for below in (each, *subclasses(each))}


def test_the_id_is_readable_and_ends_in_a_hash_of_non_defaults():
    long = run(objective=CISSL(name="cissl", predictor="mlp"), optim=Optim(epochs=1000))
    assert json.loads(long.canonical()) == {
        "data": {"kind": "synthetic"},
        "objective": {"name": "cissl", "predictor": "mlp"},
        "optim": {"epochs": 1000},
    }
    assert run_spec.run_id(long) == f"cissl_mlp-z512-e1000-{value_spec.short_hash(long.canonical())}"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "simclr-z512-e300-f2c154e0"),
        (
            {
                "data": data_spec.TinyImageNet(kind="tinyimagenet"),
                "objective": CISSL(name="cissl", predictor="mlp"),
                "encoder": ResNet(head="expand", dim=2048),
                "optim": Optim(epochs=1000),
            },
            "cissl_mlp-z2048-e1000-09fefbec",
        ),
        (
            {
                "data": data_spec.Cifar10(kind="cifar10"),
                "objective": DINO(name="dino", evaluate="teacher"),
                "augment": Augment(strength=0.5),
            },
            "dino-z512-e300-4858d796",
        ),
        (
            {
                "data": ImageNet(kind="imagenet"),
                "objective": DISSLMultiCrop(name="dissl_multicrop"),
                "augment": Augment(views=(Crops(number=2, size=224, min_area=0.14),)),
            },
            "dissl_multicrop-z512-e300-6764e0aa",
        ),
    ],
)
def test_ids_of_runs_are_pinned(changes, expected):
    """Another id would train the runs of every user again."""
    assert run_spec.run_id(run(**changes)) == expected


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
        {"encoder": ResNet(head="expand")},
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
    changed = run(optim=Optim(epochs=20, lr=1e-3), encoder=ResNet(head="expand", dim=2048))
    assert RunSpec.model_validate_json(changed.canonical()) == changed


def test_an_encoder_is_of_the_class_that_its_arch_begins_with():
    vit = {"arch": "timm/vit_small_patch16_224", "dim": 384, "patch": 8}
    made = run(encoder=vit)
    assert made.encoder == Timm(**vit) and RunSpec.model_validate_json(made.canonical()) == made
    assert json.loads(made.canonical())["encoder"] == vit and run_spec.run_id(made).startswith("simclr-z384-e300-")
    assert run(encoder={}).encoder == run().encoder == ResNet()
    assert "encoder" not in json.loads(run(encoder={"arch": "resnet18"}).canonical())
    assert run(encoder={"arch": "resnet34"}).encoder == ResNet(arch="resnet34")


@pytest.mark.parametrize("content", [{"arch": "resnet50", "dim": 2048}, {"arch": "resnet10", "width": 8, "dim": 64}])
def test_a_shape_can_take_the_place_of_an_encoder(content):
    shape, encoder = Shape(**content), ResNet(**content)
    assert dataclasses.asdict(shape) == encoder.model_dump()
    assert shape.channels == encoder.channels == encoder.dim


@pytest.mark.parametrize(
    ("model", "content", "says"),
    [
        (ResNet, {"dim": 2048}, "needs 'head: expand'"),
        (ResNet, {"dim": 1000, "head": "expand"}, "multiple of 512"),
        (ResNet, {"arch": "resnet50"}, "resnet50 alone gives 2048"),
        (Timm, {"arch": "timm/vit_tiny_patch16_224.augreg_in21k", "dim": 192}, "must be 'timm/vit_tiny_patch16_224'"),
        (Timm, {"arch": "timm/", "dim": 192}, "must be timm/<name>"),
        (Timm, {"arch": "timm/resnet34"}, "Field required"),
        (Optim, {"epochs": 0}, "greater than 0"),
        (Optim, {"epochs": 10}, "exceed warmup_epochs"),
        (Optim, {"weight_decay": -1}, "greater than or equal to 0"),
        (Optim, {"lr": float("nan")}, "finite"),
        (Optim, {"cosine": "whole_run"}, "needs 'lr_interval: step'"),
        (SimCLR, {"name": "simclr", "temperature": 0}, "greater than 0"),
        (Crops, {"number": 2, "size": 8, "min_area": 0.5, "max_area": 0.4}, "min_area 0.5 exceeds max_area 0.4"),
        (Augment, {"views": [{"number": 4, "size": 8, "min_area": 0.5}]}, "must have number 2, not 4"),
        (Augment, {"strength": 0.1}, "too weak"),
        (Augment, {"strength": 6}, "too strong"),
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
        ({"augment": Augment(views=(LARGE,))}, "is required for data of kind imagenet"),
        ({"data": ImageNet(kind="imagenet")}, "is required for data of kind imagenet"),
        (
            {"data": ImageNet(kind="imagenet"), "augment": Augment(views=(LARGE, SMALL))},
            "simclr takes two views of an image, so augment.views may have one entry",
        ),
        ({"augment": Augment(number=4)}, "simclr takes two views of an image, so augment.number must be 2"),
        (
            {"objective": WMSE(name="wmse", size=512, out=128), "optim": Optim(batch_size=256)},
            "objective.size 512 exceeds optim.batch_size 256",
        ),
    ],
)
def test_views_that_do_not_fit_the_image_are_refused(changes, says):
    with pytest.raises(ValidationError, match=says):
        run(**changes)


def test_methods_of_many_views_take_them_of_arrays_and_of_photographs():
    assert run(objective=WMSE(name="wmse"), augment=Augment(number=4)).augment.number == 4
    photographs = {"data": ImageNet(kind="imagenet"), "augment": Augment(views=(LARGE, SMALL))}
    assert run(objective=LeJEPA(name="lejepa"), **photographs)
    with pytest.raises(ValidationError, match="number 4: the numbers of views of photographs are those in `views`"):
        Augment(number=4, views=(LARGE,))


def test_dimensions_below_the_trunks_are_allowed():
    assert ResNet(dim=128, head="expand").dim == 128


@pytest.mark.parametrize(
    "narrow", [{"width": 4, "dim": 32}, {"head": "expand", "bottleneck": 7}, {"head": "expand", "dim": 4}]
)
def test_convolutions_that_crash_on_some_cpus_are_refused(narrow):
    with pytest.raises(ValidationError, match=r"encoder\.\w+ \d is below 8, which may crash training on a CPU"):
        run(encoder=ResNet(**narrow))
