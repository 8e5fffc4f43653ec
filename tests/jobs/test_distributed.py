"""One training in 2 and 4 processes against one process with the same global batch: losses, gradients, statistics."""

import json
import multiprocessing
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from issl import objectives
from issl.errors import UserError
from issl.jobs import distributed
from issl.models import encoders
from issl.objectives.base import Clock
from issl.spec.run import RunSpec
from issl.views import augment

METHODS = {
    "simclr": {"name": "simclr", "hidden": 32, "out": 16},
    "cissl": {"name": "cissl", "hidden": 32, "out": 16},
    "cissl_mlp": {"name": "cissl", "predictor": "mlp", "mlp_hidden": 32, "out": 16},
    "dissl": {"name": "dissl", "hidden": 32, "bottleneck": 16, "classes": 64},
    "dissl_mlp": {"name": "dissl", "predictor": "mlp", "mlp_hidden": 32, "bottleneck": 16, "classes": 64},
    "dissl_multicrop": {"name": "dissl_multicrop", "hidden": 32, "bottleneck": 16, "classes": 64},
    "dino": {"name": "dino", "hidden": 32, "bottleneck": 16, "classes": 64},
    "dcl": {"name": "dcl", "hidden": 32, "out": 16},
    "dcl_weighted": {"name": "dcl", "weighted": True, "hidden": 32, "out": 16},
    "barlow_twins": {"name": "barlow_twins", "hidden": 32, "out": 16},
    "vicreg": {"name": "vicreg", "hidden": 32, "out": 16},
    "wmse": {"name": "wmse", "size": 8, "iterations": 2, "hidden": 32, "out": 4},
    "lejepa": {"name": "lejepa", "hidden": 32, "out": 16, "slices": 32},
    "byol": {"name": "byol", "hidden": 32, "out": 16},
    "simsiam": {"name": "simsiam", "hidden": 32, "out": 16, "bottleneck": 8},
    "moco_v3": {"name": "moco_v3", "hidden": 32, "out": 16, "temperature": 0.2},
    "swav": {"name": "swav", "hidden": 32, "out": 16, "prototypes": 64},
    "swav_queue": {"name": "swav", "hidden": 32, "out": 16, "prototypes": 64, "queue": 24, "queue_start_epoch": 1},
}
ENCODERS = {}  # instead of a narrow ResNet-10
if find_spec("timm"):  # its batch norms have an activation inside
    METHODS["dino, timm"] = METHODS["dino"]
    ENCODERS["dino, timm"] = {"arch": "timm/test_efficientnet", "dim": 64, "head": "expand", "bottleneck": 16}
IMAGES = 16
CLOCK = Clock(epoch=1, epochs=4, step=4, steps_per_epoch=4)


def step(method):
    """One forward and backward pass on this process's share: everything that a step leaves behind, by name."""
    torch.manual_seed(0)
    run = RunSpec.model_validate(
        {
            "data": {"kind": "synthetic", "classes": 4, "train_per_class": 8, "test_per_class": 4, "image_size": 16},
            "objective": METHODS[method],
            "encoder": ENCODERS.get(method, {"arch": "resnet10", "width": 8, "dim": 64}),
            "optim": {"epochs": 4, "batch_size": IMAGES, "warmup_epochs": 1},
        }
    )
    encoder = encoders.build(run.encoder, 16).double()
    objective = objectives.build(run.objective, 64, encoder).double()
    geometry = objectives.Geometry(64)
    both = distributed.synchronised(nn.ModuleDict({"encoder": encoder, "objective": objective}), torch.device("cpu"))
    batch = augment.clean(torch.randint(256, (2 * IMAGES, 3, 16, 16), dtype=torch.uint8)).double()
    views = torch.cat([distributed.share(view) for view in batch.chunk(2)])
    z = both["encoder"](views)
    if run.objective.many_views:  # three small views of the same images
        small = augment.clean(torch.randint(256, (3 * IMAGES, 3, 8, 8), dtype=torch.uint8)).double()
        z = torch.cat([z, both["encoder"](torch.cat([distributed.share(view) for view in small.chunk(3)]))])
    terms = both["objective"](z, views, CLOCK)
    terms.loss.backward()
    left = {f"loss {name}": value for name, value in ({"loss": terms.loss.detach()} | terms.logs).items()}
    left |= {f"loss {name}": value for name, value in geometry(z[: len(views)].detach()).items()}
    left |= {f"gradient {name}": p.grad for name, p in both.named_parameters() if p.grad is not None}
    for value in left.values():  # as DDP does
        if distributed.world_size() > 1:
            dist.all_reduce(value)
            value /= distributed.world_size()
    return left | {f"buffer {name}": value for name, value in both.named_buffers()}


def work(folder, rank, world):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    left = {method: step(method) for method in METHODS}
    agreed = [distributed.agreed(rank == 0), distributed.agreed(rank == 1)]
    try:
        distributed.share(torch.zeros(world + 1))
    except UserError as error:
        refusal = str(error)
    if rank == 0:
        torch.save({"left": left, "agreed": agreed, "refusal": refusal}, Path(folder, "left.pt"))
    dist.barrier()
    dist.destroy_process_group()


FOUR = pytest.param(4, marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=[2, FOUR])
def several(request, tmp_path_factory):
    folder, world = tmp_path_factory.mktemp(f"ranks{request.param}"), request.param
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(
        ["issl.models.encoders", "issl.objectives", "issl.jobs.distributed"]
    )  # one import for all processes
    jobs = [server.Process(target=work, args=(folder, rank, world)) for rank in range(world)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(200)
    assert [job.exitcode for job in jobs] == [0] * world
    return torch.load(folder / "left.pt", weights_only=True) | {"world": world}


@pytest.fixture(scope="module")
def alone():
    return {method: step(method) for method in METHODS}


@pytest.mark.parametrize("method", METHODS)
def test_several_processes_equal_one(several, alone, method, record_property):
    ours, expected = several["left"][method], alone[method]
    assert ours.keys() == expected.keys()
    for kind in ("loss", "gradient", "buffer"):
        names = [name for name in expected if name.startswith(kind)]
        apart = max(((ours[name] - expected[name]).abs().max() for name in names), default=torch.tensor(0.0))
        size = max((expected[name].abs().max() for name in names), default=torch.tensor(1.0))
        record_property(kind, float(apart / size))
        print(json.dumps({"method": method, "processes": several["world"], kind: float(apart / size)}))
        assert apart <= 1e-5 * size, kind


def test_the_comparison_detects_gradients_lost_between_processes(alone, monkeypatch):
    """With the plain collectives gradients do not come back from other ranks: detaching shows the size of the fault."""
    all_gather_views, mean = distributed.all_gather_views, distributed.mean
    monkeypatch.setattr(distributed, "all_gather_views", lambda x: all_gather_views(x).detach())
    monkeypatch.setattr(distributed, "mean", lambda x: mean(x).detach())
    for method in ("simclr", "cissl", "dissl", "dissl_multicrop", "dcl", "vicreg", "lejepa"):
        left = step(method)
        names = [name for name in left if name.startswith("gradient")]
        apart = max((left[name] - alone[method][name]).abs().max() for name in names)
        size = max(alone[method][name].abs().max() for name in names)
        assert apart > 1e-3 * size, method


def test_the_first_process_decides_for_all_others(several):
    assert several["agreed"] == [True, False]


def test_a_batch_that_cannot_be_split_equally_is_refused(several):
    world = several["world"]
    assert f"a batch of {world + 1} images cannot be split equally among {world} processes" in several["refusal"]


def test_in_one_process_every_collective_is_the_identity():
    x, norm = torch.randn(6, 3), nn.BatchNorm1d(3)
    assert distributed.all_gather_views(x) is x and distributed.mean(x) is x and distributed.share(x) is x
    assert distributed.synchronised(norm, torch.device("cpu")) is norm and type(norm) is nn.BatchNorm1d
    assert distributed.agreed(True) and not distributed.agreed(False)
    itself, other = distributed.columns(6, torch.device("cpu"))
    assert (itself.tolist(), other.tolist()) == ([0, 1, 2, 3, 4, 5], [3, 4, 5, 0, 1, 2])
