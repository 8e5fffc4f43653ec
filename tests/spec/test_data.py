"""What a data set tells of its size before it is prepared agrees with what is then prepared."""

import pytest
from pydantic import ValidationError

from issl import data
from issl.planning import observed
from issl.planning.work import Sizes
from issl.spec.data import Cifar10, ImageFolder, ImageNet, Synthetic, TinyImageNet
from issl.spec.objective import Supervised
from issl.spec.run import RunSpec

SYNTHETIC = Synthetic(kind="synthetic", classes=3, train_per_class=5, test_per_class=2, image_size=8)


def told(spec):
    return spec.n_train, spec.n_test, spec.n_classes


def test_the_numbers_are_those_of_the_prepared_images(tmp_path):
    arrays = data.prepare(SYNTHETIC, tmp_path, progress=False)
    assert told(SYNTHETIC) == (*arrays.meta["splits"].values(), arrays.n_classes) == (15, 6, 3)


def test_the_numbers_of_public_data_sets_are_the_published_ones():
    assert told(TinyImageNet(kind="tinyimagenet")) == (100_000, 10_000, 200)
    assert told(Cifar10(kind="cifar10")) == (50_000, 10_000, 10)


def test_caps_of_a_data_set_count():
    capped = TinyImageNet(kind="tinyimagenet", classes=50, train_per_class=125, test_per_class=12)
    assert told(capped) == (6250, 600, 50)
    assert told(ImageNet(kind="imagenet", classes=100)) == (None, None, 100)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (TinyImageNet(kind="tinyimagenet", partial=True), (None, None, 200)),
        (ImageFolder(kind="folder", name="own", image_size=8), (None, None, None)),
        (ImageNet(kind="imagenet", train_per_class=5), (None, None, None)),
    ],
)
def test_what_only_the_prepared_data_tell_is_not_guessed(tmp_path, spec, expected):
    assert told(spec) == expected
    assert observed.sizes(tmp_path, spec) is None


def test_a_plan_has_the_numbers_before_anything_is_prepared(tmp_path):
    assert observed.sizes(tmp_path, Cifar10(kind="cifar10")) == Sizes(50_000, 10_000, 10)


def test_a_supervised_reference_has_the_classes_of_its_data():
    def run(classes):
        return RunSpec(data=Cifar10(kind="cifar10"), objective=Supervised(name="supervised", classes=classes))

    assert run(10)
    with pytest.raises(ValidationError, match=r"objective\.classes 200: the data set has 10 classes"):
        run(200)
