"""How images are encoded: equal settings have one id."""

import pytest
from pydantic import ValidationError

from issl.spec.data import Cifar10, ImageNet, Synthetic
from issl.spec.encoding import Encoding, encoding_id

CIFAR10 = Cifar10(kind="cifar10")


def test_ids_are_pinned_and_independent_of_the_path():
    here = Encoding(data=CIFAR10, resize=224)
    there = here.model_copy(update={"data": Cifar10(kind="cifar10", path="elsewhere")})
    assert encoding_id(here) == encoding_id(there) == "cifar10-c7d1930c"
    assert encoding_id(Encoding(data=ImageNet(kind="imagenet"))) == "imagenet-509d9f26"
    own = Encoding(data=Synthetic(kind="synthetic"), resize=32, crop=32, batch_size=512)
    assert encoding_id(own) == "synthetic-2b590096"


@pytest.mark.parametrize(
    "change",
    [
        *({"layer": "trunk"}, {"batch_norm": "train"}, {"resize": 224}, {"crop": 200}, {"batch_size": 64}),
        {"data": ImageNet(kind="imagenet", name="another")},
    ],
)
def test_settings_that_change_features_change_the_id(change):
    ids = {encoding_id(Encoding(**{"data": data, **change})) for data in (CIFAR10, ImageNet(kind="imagenet"))}
    assert not ids & {encoding_id(Encoding(data=data)) for data in (CIFAR10, ImageNet(kind="imagenet"))}


def test_a_crop_beyond_the_image_is_refused():
    with pytest.raises(ValidationError, match="crop 224 exceeds the shorter side, resize 200"):
        Encoding(data=CIFAR10, resize=200)
