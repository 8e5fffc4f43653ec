"""What an evaluation is: equal settings have one id, and no default changes behind it."""

import pytest
from pydantic import ValidationError

from issl.spec.data import Cifar10, ImageNet
from issl.spec.protocol import SVM, Augmented, Cached, CachedProbe, Encoding, Logistic, encoding_id, protocol_id

CIFAR10 = Cifar10(kind="cifar10")


def test_defaults_equal_the_authors_scripts_and_are_frozen():
    """An id leaves defaults out: editing one here would silently give old scores new settings."""
    assert Encoding(weights="w", data=CIFAR10).model_dump(exclude={"data"}) == {
        "weights": "w",
        "resize": 256,
        "crop": 224,
        "layer": "output",
        "batch_norm": "eval",
        "batch_size": 128,
    }
    assert CachedProbe().model_dump() == {
        "optimizer": "sgd",
        "lr": 0.1,
        "weight_decay": 1e-6,
        "batch_norm": False,
        "batch_size": 2048,
        "epochs": 100,
        "momentum": 0.9,
    }
    assert Cached(kind="cached").model_dump(exclude={"probes"}) == {"kind": "cached", "holdout": 0.02}
    assert Cached(kind="cached").probes == (CachedProbe(),)
    assert Augmented(kind="augmented").model_dump() == {
        "kind": "augmented",
        "epochs": 28,
        "batch_size": 1024,
        "lr": 0.01,
        "milestones": (8, 16, 24),
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "min_area": 0.08,
        "holdout": 0.02,
    }
    searched = {"draws": 10, "lowest": 1e-4, "highest": 100.0, "holdout": 0.1, "max_iter": 1000, "tol": 1e-3}
    assert Logistic(kind="logistic").model_dump() == {"kind": "logistic", **searched}
    assert SVM(kind="svm").model_dump() == {"kind": "svm", **searched}


def test_ids_are_pinned_and_independent_of_the_path():
    here = Encoding(weights="dissl_resnet50_d8192_e400_m6", data=CIFAR10, resize=224)
    there = here.model_copy(update={"data": Cifar10(kind="cifar10", path="elsewhere")})
    assert encoding_id(here) == encoding_id(there) == "cifar10-dfd277b8"
    assert encoding_id(Encoding(weights="w", data=ImageNet(kind="imagenet"))) == "imagenet-c253837d"
    assert protocol_id(Augmented(kind="augmented")) == "augmented-af84dd01"
    assert protocol_id(SVM(kind="svm")) == "svm-7de6ee22"


@pytest.mark.parametrize("change", [{"layer": "trunk"}, {"batch_norm": "train"}, {"resize": 224}, {"weights": "v"}])
def test_settings_that_change_features_change_the_id(change):
    base = Encoding(weights="w", data=CIFAR10)
    assert encoding_id(base) != encoding_id(Encoding(**{"weights": "w", "data": CIFAR10, **change}))


def test_impossible_settings_are_refused():
    with pytest.raises(ValidationError, match="crop 224 exceeds the shorter side, resize 200"):
        Encoding(weights="w", data=CIFAR10, resize=200)
    with pytest.raises(ValidationError, match=r"lowest 1\.0 must be below highest 1.0"):
        SVM(kind="svm", lowest=1, highest=1)
    with pytest.raises(ValidationError, match="the same probe is asked for twice"):
        Cached(kind="cached", probes=[{}, {}])
