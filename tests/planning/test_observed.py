"""What records tell of the time of jobs."""

import json
import shutil
from pathlib import Path

import pytest
from left_behind import DEVICE, finish, named, put, score

from issl.errors import UserError
from issl.jobs.execution import Execution
from issl.planning import observed, work
from issl.planning.work import Sizes
from issl.spec.data import ImageFolder, data_id
from issl.spec.run import run_id
from issl.training.pretrain import pretrain

TINY = Sizes(train=1500, test=1000, classes=20)


def only(found, stage="pretrain"):
    (job,) = found[DEVICE][stage]
    return job


def test_a_real_training_is_read_back(plans, synthetic, make_run, tmp_path):
    run, root = make_run(), tmp_path / "results/real"
    folder = root / "runs" / run_id(run) / "s1"
    pretrain(run, 1, synthetic, folder, Execution(device="cpu"))
    record = json.loads((folder / "run.json").read_text())
    ((device, stages),) = observed.measured([root]).items()
    (job,) = stages["pretrain"]
    assert device == record["device"]
    assert job.seconds == record["seconds_this_attempt"]
    assert job.work == work.pretraining(run, Sizes(64, 32, 4))._replace(jobs=0)  # its start was not recorded
    data = root / "data" / data_id(run.data)
    shutil.copytree(synthetic, data)
    assert observed.sizes(root, run.data) == Sizes(64, 32, 4)


def test_snakemakes_record_has_the_start_of_a_job(plans, tiny):
    run = named(tiny, "simclr-z64-e9")
    finish(tiny, run, seconds=20, whole=26)
    job = only(observed.measured([Path(tiny.root)]))
    assert (job.seconds, job.work) == (26, work.pretraining(tiny.runs[run], TINY))


@pytest.mark.parametrize("whole", [3, 500], ids=["of another attempt", "it waited for another job"])
def test_a_record_of_something_else_is_not_used(plans, tiny, whole):
    finish(tiny, named(tiny, "simclr-z64-e9"), seconds=20, whole=whole)
    job = only(observed.measured([Path(tiny.root)]))
    assert (job.seconds, job.work.jobs) == (21, 0)


def test_featurizing_and_probing_are_read_too(plans, tiny):
    run = named(tiny, "simclr-z64-e9")
    finish(tiny, run)
    score(tiny, "table1_contrastive", run, seconds=4)
    found = observed.measured([Path(tiny.root)])
    assert only(found, "featurize").seconds == only(found, "probe linear").seconds == 4
    assert only(found, "featurize").work.steps == 2500 / 512


def test_a_stopped_training_counts_with_what_it_did(plans, tiny):
    run = named(tiny, "simclr-z64-e9")
    about = {"spec": tiny.runs[run].model_dump(mode="json"), "device": DEVICE, "epoch": 3, "seconds": 7.5}
    put(f"{tiny.root}/runs/{run}/s1/checkpoints/progress.json", about)
    job = only(observed.measured([Path(tiny.root)]))
    whole = work.pretraining(tiny.runs[run], TINY)
    assert job.seconds == 7.5 and job.work.jobs == 0
    assert job.work.steps == pytest.approx(whole.steps / 3)


def test_several_processes_are_a_device_of_their_own(plans, tiny):
    assert observed.device({"device": "GPU", "processes": 4}) == "4 x GPU"
    assert observed.device({"device": "GPU", "processes": 1}) == observed.device({"device": "GPU"}) == "GPU"


def test_a_record_of_another_version_tells_nothing(plans, tiny):
    run = named(tiny, "simclr-z64-e9")
    finish(tiny, run)
    score(tiny, "table1_contrastive", run)
    path = Path(tiny.root, "runs", run, "s1/run.json")
    record = json.loads(path.read_text())
    record["spec"]["encoder"]["depth"] = 7
    put(path, record)
    assert observed.measured([Path(tiny.root)]) == {}


def test_a_record_that_cannot_be_read_is_named(plans, tiny):
    run = named(tiny, "simclr-z64-e9")
    finish(tiny, run)
    put(f"{tiny.root}/runs/{run}/s1/run.json", "{")
    with pytest.raises(UserError, match=r"s1/run\.json: cannot be read"):
        observed.measured([Path(tiny.root)])


def test_a_folder_of_images_has_a_size_once_it_is_prepared(plans, tmp_path):
    data = ImageFolder(kind="folder", name="mine", image_size=16)
    assert observed.sizes(tmp_path, data) is None
    put(tmp_path / "data" / data_id(data) / "meta.json", {"splits": {"train": 7, "test": 3}, "classes": ["a", "b"]})
    assert observed.sizes(tmp_path, data) == Sizes(7, 3, 2)
