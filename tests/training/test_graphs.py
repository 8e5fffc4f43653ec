"""A recorded encoder computes what the encoder does, and learns the same."""

import copy
import csv
import gc

import pytest
import torch
from torch import nn

from issl.errors import UserError
from issl.jobs import devices
from issl.jobs.execution import Execution
from issl.models import encoders
from issl.training import graphs
from issl.training.pretrain import pretrain

CPU = torch.device("cpu")
SHAPE = (4, 3, 16, 16)


@pytest.fixture
def encoder(small_run):
    return encoders.build(small_run.encoder, small_run.data.image_size).to(memory_format=torch.channels_last)


@pytest.fixture
def small_run(make_run):
    return make_run()


class Recording:
    """Stands for `torch.cuda.make_graphed_callables`: moves running means, as warming up does, and marks replays."""

    def __init__(self):
        self.replayed = []

    def __call__(self, module: nn.Module, samples: tuple[torch.Tensor]):
        module(*samples)

        def replay(views):
            self.replayed.append(tuple(views.shape))
            return module(views)

        return replay


@pytest.fixture
def recording(monkeypatch):
    made = Recording()
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", made)
    return made


def test_a_pass_is_replayed_for_training_views_of_its_shape_alone(encoder, recording):
    (encode,) = graphs.recorded(encoder, [SHAPE], CPU, "32")
    for shape in (SHAPE, (2, *SHAPE[1:])):
        assert encode(torch.randn(shape)).shape == (shape[0], encoder.dim)
    encoder.eval()
    encode(torch.randn(SHAPE))
    assert recording.replayed == [SHAPE]


def test_each_group_of_a_step_has_a_pass_of_its_own(encoder, recording):
    first, second = graphs.recorded(encoder, [SHAPE, SHAPE], CPU, "32")
    assert first.replay is not second.replay


def test_recording_leaves_the_running_means(encoder, recording):
    before = copy.deepcopy(encoder.state_dict())
    graphs.recorded(encoder, [SHAPE], CPU, "32")
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())


def test_an_encoder_that_cannot_be_compiled_is_refused_in_one_line(encoder, monkeypatch):
    def fails(module, samples):
        raise RuntimeError("InductorError: no working C compiler\nSet TORCHDYNAMO_VERBOSE=1 for the stack")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", fails)
    with pytest.raises(UserError, match=r"^execution\.compile: .*\(InductorError: no working C compiler\); .*gcc"):
        graphs.recorded(encoder, [SHAPE], CPU, "32", compiled=True)
    assert gc.isenabled()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["32", "bf16", "fp16"])
def test_replayed_steps_equal_computed_ones(encoder, precision):
    cuda = torch.device("cuda")
    torch.backends.cudnn.deterministic = True
    try:
        ends = [trained(copy.deepcopy(encoder).to(cuda), cuda, precision, record) for record in (False, True)]
    finally:
        torch.backends.cudnn.deterministic = False
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name]), name


def trained(encoder, device, precision, record):
    """The state after four steps, one of them of another shape."""
    encode = graphs.recorded(encoder, [SHAPE], device, precision)[0] if record else encoder
    draws, sgd = torch.Generator().manual_seed(0), torch.optim.SGD(encoder.parameters(), lr=1e-3)
    for rows in (4, 4, 2, 4):
        views = torch.randn(rows, *SHAPE[1:], generator=draws).to(device).contiguous(memory_format=torch.channels_last)
        with devices.autocast(device, precision):
            z = encode(views)
        sgd.zero_grad()
        z.float().square().mean().backward()
        sgd.step()
    return encoder.state_dict()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("settings", [{"graphs": True}, {"graphs": True, "compile": True}])
def test_a_training_learns_the_same_from_a_recording(synthetic, make_run, tmp_path, settings):
    run = make_run("dissl", optim={"batch_size": 24})  # 64 images: the last batch of an epoch is smaller
    losses = []
    for name, execution in (("computed", {"graphs": False}), ("recorded", settings)):
        pretrain(run, 1, synthetic, tmp_path / name, Execution(precision="32", progress=False, **execution))
        with (tmp_path / name / "history.csv").open() as file:
            losses.append([float(row["loss"]) for row in csv.DictReader(file)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
