"""Numbers that were computed without the code under test: in NumPy, in closed form, or by the authors' libraries.

Nothing is drawn where it can be avoided: inputs and weights are sines of their index. The expected values of losses
and optimisers are worked out in float64 by the functions in this file, which call nothing of the package.
"""

import hashlib
import math
from itertools import count

import numpy as np
import pytest
import torch
from in_memory import task
from sklearn.linear_model import LogisticRegression
from torch import nn
from torchvision.models import resnet18

from issl import objectives
from issl.data.arrays import read
from issl.jobs.execution import Execution
from issl.models import encoders
from issl.objectives.base import Clock, Objective
from issl.probing import heads
from issl.probing.side_by_side import fit_and_score
from issl.probing.subsets import stratified
from issl.spec.encoder import ResNet
from issl.spec.objective import CISSL, DINO, DISSL, ObjectiveSpec, SimCLR
from issl.spec.optim import Optim
from issl.spec.probe import MLP, Linear
from issl.training import pretrain
from issl.training.optim import learning_rates
from issl.views.random import epoch_order, generator

B, DIM, CLASSES = 3, 6, 5  # images, each with two views; dimension of the representation; classes of DISSL and DINO
DEFAULTS = (
    *(SimCLR(name="simclr"), CISSL(name="cissl")),
    *(DISSL(name="dissl"), DINO(name="dino")),
)
every_default = pytest.mark.parametrize("content", DEFAULTS, ids=lambda content: content.name)


# --- losses ----------------------------------------------------------------------------------------------------------


def wave(shape: tuple[int, ...], phase: float) -> np.ndarray:
    """Numbers in [-1, 1] that need no generator."""
    return np.sin(phase + 1.3 * np.arange(math.prod(shape))).reshape(shape)


def fill(module: nn.Module, first: int) -> None:
    """Makes the parameters of a head waves of phase first, first + 1 ...; fixed magnitudes of prototypes stay."""
    phases = count(first)
    for name, parameter in module.named_parameters():
        if not name.endswith("original0"):
            parameter.data = torch.from_numpy(wave(tuple(parameter.shape), next(phases)))


def head(x: np.ndarray, first: int, *layers: int | str) -> np.ndarray:
    """What a head that was filled from phase `first` gives in train mode. An int is the width of a Linear layer."""
    phases = count(first)
    for layer in layers:
        if layer == "bias":
            x = x + wave((x.shape[1],), next(phases))
        elif layer == "norm":
            scale, shift = (wave((x.shape[1],), next(phases)) for _ in range(2))
            x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) * scale + shift
        elif layer == "relu":
            x = np.maximum(x, 0)
        elif layer == "gelu":
            x = x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
        elif layer == "unit":
            x = unit(x)
        elif layer == "unit weights":  # of the Linear layer that comes next
            x = x @ unit(wave((CLASSES, x.shape[1]), next(phases))).T
        else:
            x = x @ wave((layer, x.shape[1]), next(phases)).T
    return x


def unit(rows: np.ndarray) -> np.ndarray:
    return np.stack([row / math.sqrt(sum(value**2 for value in row)) for row in rows])


def softmax(rows: np.ndarray) -> np.ndarray:
    return np.stack([np.exp(row) / sum(math.exp(value) for value in row) for row in rows])


def cross_entropy(p: np.ndarray, q: np.ndarray) -> float:
    return -sum(a * math.log(b) for row_p, row_q in zip(p, q) for a, b in zip(row_p, row_q)) / len(p)


def entropy(p: np.ndarray) -> float:
    return -sum(value * math.log(value) for value in p)


Z = wave((2 * B, DIM), 0.5)
VIEWS = wave((2 * B, 3, 1, 2), 0.25)  # DINO's teacher encoder only flattens them
CENTER = wave((1, CLASSES), 0.75)
AT_EPOCH_20 = Clock(20, 300, 20 * 196, 196)


def simclr_by_hand() -> float:
    u = unit(head(Z, 200, 7, "norm", "relu", 4, "bias", "norm"))
    total = 0.0
    for i in range(2 * B):
        weights = [math.exp(u[i] @ u[j] / 0.07) for j in range(2 * B)]
        total -= math.log(weights[(i + B) % (2 * B)] / (sum(weights) - weights[i]))
    return total / (2 * B)


def cissl_by_hand(mlp: bool) -> float:
    hidden = (8, "norm", "relu", 8, "norm", "relu")
    a = unit(head(Z, 100, *(hidden if mlp else ()), 4, "bias", "norm"))
    b = unit(head(Z, 200, *(hidden if mlp else (7, "norm", "relu")), 4, "bias", "norm"))
    total = 0.0
    for i in range(2 * B):
        weights = [math.exp(a[i] @ b[j] / 0.07) for j in range(2 * B)]
        total -= 0.5 * math.log(weights[i] / sum(weights)) + 0.5 * math.log(weights[(i + B) % (2 * B)] / sum(weights))
    return total / (2 * B)


def dissl_by_hand(mlp: bool) -> float:
    hidden, last = (8, "norm", "relu", 8, "norm", "relu"), (3, "norm", CLASSES, "bias")
    s = softmax(head(Z, 100, *(hidden if mlp else ()), *last))
    t = softmax(head(Z, 200, *(hidden if mlp else (7, "norm", "relu")), *last) / 0.5)
    (s1, s2), (t1, t2) = (s[:B], s[B:]), (t[:B], t[B:])
    return (
        0.5 * (cross_entropy(t1, s2) + cross_entropy(t2, s1))
        - 2.3 * 0.5 * (entropy(t1.mean(0)) + entropy(t2.mean(0)))
        + 0.8 * 0.5 * (cross_entropy(t1, t2) + cross_entropy(t2, t1))
    )


def dino_by_hand(after: bool) -> tuple[float, np.ndarray]:
    """The loss, and the centre that the step leaves."""
    layers = (5, "unit weights") if not after else (5, "unit", "unit weights")
    layers = (7, "norm", "gelu", *(() if after else ("unit",)), *layers)
    s = softmax(head(Z, 100, *layers) / 0.1)
    t = head(VIEWS.reshape(2 * B, 6), 200, *layers)
    temperature, center = 0.04 + (0.07 - 0.04) * 20 / 49, CENTER
    loss = 0.5 * cross_entropy(softmax((t[B:] - center) / temperature), s[:B])
    center = 0.9 * center + 0.1 * t[B:].mean(0)
    loss += 0.5 * cross_entropy(softmax((t[:B] - center) / temperature), s[B:])
    return loss, 0.9 * center + 0.1 * t[:B].mean(0)


def filled(content: ObjectiveSpec) -> Objective:
    """The objective in float64: predictors and DINO's student are filled from phase 100, projectors from 200."""
    objective = objectives.build(content, DIM, nn.Flatten()).double()
    phases = {"predictor": 100, "projector": 200, "teacher_projector": 200}
    if content.name == "dino":
        phases["projector"] = 100
    for name, phase in phases.items():
        if hasattr(objective, name):
            fill(getattr(objective, name), phase)
    if content.name == "dino":
        objective.center.copy_(torch.from_numpy(CENTER))
    return objective


# The literals are what the functions above gave; torch's cross_entropy with probabilities as targets and its
# Categorical(...).entropy(), which the released code calls, agreed to 12 digits.
SMALL_DISSL = {"name": "dissl", "classes": CLASSES, "hidden": 7, "mlp_hidden": 8, "bottleneck": 3}
SMALL_DINO = {"name": "dino", "classes": CLASSES, "hidden": 7, "bottleneck": 5}
LOSSES = {
    "simclr": (SimCLR(name="simclr", hidden=7, out=4), simclr_by_hand, 9.889842677452),
    "cissl": (CISSL(name="cissl", hidden=7, out=4), lambda: cissl_by_hand(mlp=False), 7.074475978536),
    "cissl_mlp": (
        *(CISSL(name="cissl", predictor="mlp", mlp_hidden=8, out=4), lambda: cissl_by_hand(mlp=True)),
        5.892366380115,
    ),
    "dissl": (DISSL(**SMALL_DISSL), lambda: dissl_by_hand(mlp=False), 1.031188695637),
    "dissl_mlp": (DISSL(**SMALL_DISSL, predictor="mlp"), lambda: dissl_by_hand(mlp=True), 1.949588806440),
    "dino": (DINO(**SMALL_DINO), lambda: dino_by_hand(after=False)[0], 4.364734414749),
    "dino_after_bottleneck": (
        *(DINO(**SMALL_DINO, normalize="after_bottleneck"), lambda: dino_by_hand(after=True)[0]),
        2.464943916761,
    ),
}


@pytest.mark.parametrize(("content", "by_hand", "literal"), LOSSES.values(), ids=LOSSES)
def test_losses_and_heads_equal_the_released_values(content, by_hand, literal):
    loss = filled(content)(torch.from_numpy(Z), torch.from_numpy(VIEWS), AT_EPOCH_20).loss.item()
    assert by_hand() == pytest.approx(literal, rel=1e-10)
    assert loss == pytest.approx(literal, rel=1e-8)


def test_dinos_centre_equals_the_released_value():
    objective = filled(DINO(**SMALL_DINO))
    objective(torch.from_numpy(Z), torch.from_numpy(VIEWS), AT_EPOCH_20)
    literal = [0.64314389, 0.78718592, -0.12550799, -0.79510509, -0.28114486]
    assert dino_by_hand(after=False)[1][0] == pytest.approx(literal, abs=1e-8)
    assert objective.center[0].numpy() == pytest.approx(literal, abs=1e-8)


def silent(content: ObjectiveSpec) -> Objective:
    """The objective with heads that give the same to every image: their last layers are zero."""
    objective = objectives.build(content, 512, nn.Flatten())
    for parameter in objective.parameters():
        if parameter.shape[0] in (128, 16384, 256):  # SimCLR's and CISSL's last layers; DISSL's; DINO's bottleneck
            nn.init.zeros_(parameter)
    return objective


# ln(2B - 1) and ln(2B) at B = 512; ln 16384 times 1 - 2.3 + 0.8; ln 1000.
UNIFORM = {"simclr": 6.930495, "cissl": 6.931472, "dissl": -4.852030, "dino": 6.907755}


@every_default
def test_uniform_outputs_give_the_closed_form_at_published_sizes(content):
    rows = 1024 if content.name in ("simclr", "cissl") else 8
    z = torch.from_numpy(wave((rows, 512), 0)).float()
    loss = silent(content)(z, z.reshape(rows, 1, 2, 256), AT_EPOCH_20).loss.item()
    assert loss == pytest.approx(UNIFORM[content.name], abs=2e-5)


class Same(nn.Module):
    def forward(self, z: torch.Tensor, freeze_prototypes: bool = False) -> torch.Tensor:
        return z


def through(content: ObjectiveSpec) -> Objective:
    """The objective with its heads replaced by the identity."""
    objective = objectives.build(content, 4, nn.Flatten())
    for name, _ in list(objective.named_children()):
        if name != "teacher_encoder":
            setattr(objective, name, Same())
    return objective.double()


# Four images, each certain of its own class and equal in both views: no choice is left to SimCLR and DINO, CISSL's two
# positives leave ln 2, and DISSL's classes are used evenly, -2.3 ln 4.
@pytest.mark.parametrize(
    ("content", "literal"),
    [
        (SimCLR(name="simclr", temperature=0.01), 0.0),
        (CISSL(name="cissl", temperature=0.01), 0.693147180560),
        (DISSL(name="dissl", classes=4), -3.188477030576),
        (DINO(name="dino", classes=4), 0.0),
    ],
    ids=["simclr", "cissl", "dissl", "dino"],
)
def test_losses_reach_their_closed_form_minimum(content, literal):
    z = 1000 * torch.eye(4, dtype=torch.float64).repeat(2, 1)
    loss = through(content).eval()(z, z.reshape(8, 1, 2, 2), AT_EPOCH_20).loss.item()
    assert loss == pytest.approx(literal, abs=1e-10)


# --- schedules -------------------------------------------------------------------------------------------------------


def rates(epoch: int, **keys) -> tuple[float, float]:
    optim = Optim(**keys)
    return learning_rates(optim, Clock(epoch, optim.epochs, epoch * 196, 196))


# Read from the optimiser while LinearWarmupCosineAnnealingLR (warmup_epochs=10, the last base rate and max_epochs of
# each table), in the file of the wheel pytorch-lightning-bolts 0.3.2.post1, was stepped once an epoch.
BOLTS = [
    (
        {"epochs": 300, "batch_size": 512},  # 4e-3
        {
            **{0: 0.0, 1: 4.4444444444e-04, 5: 2.2222222222e-03, 9: 4e-3, 10: 4e-3},
            **{11: 3.9998826456e-03, 155: 2e-3, 298: 4.6940396303e-07, 299: 1.1735443377e-07},
        },
    ),
    (
        {"epochs": 1000, "batch_size": 512},  # 4e-3
        {
            **{0: 0.0, 1: 4.4444444444e-04, 9: 4e-3, 10: 4e-3},
            **{11: 3.9999899300e-03, 500: 2.0317319277e-03, 999: 1.0069988898e-08},
        },
    ),
    (
        {"epochs": 300, "batch_size": 256},  # 2e-3
        {0: 0.0, 1: 2.2222222222e-04, 9: 2e-3, 10: 2e-3, 11: 1.9999413228e-03, 155: 1e-3, 299: 5.8677216887e-08},
    ),
]


@pytest.mark.parametrize(("keys", "table"), BOLTS, ids=["300 epochs", "1000 epochs", "distillation"])
def test_learning_rates_equal_lightning_bolts(keys, table):
    assert {epoch: rates(epoch, **keys)[0] for epoch in table} == pytest.approx(table, rel=1e-8)


@pytest.mark.parametrize(("epochs", "milestones"), [(300, [100, 200]), (1000, [333, 666])])
def test_the_online_rate_follows_torchs_multi_step_schedule(epochs, milestones):
    sgd = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=3e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(sgd, milestones, gamma=0.1)
    for epoch in range(epochs):
        assert rates(epoch, epochs=epochs)[1] == pytest.approx(sgd.param_groups[0]["lr"], rel=1e-9)
        sgd.step(), schedule.step()


def released_momentum(steps: int) -> list[float]:
    """The momentum is used, then computed anew from Lightning's count, which grew by one for each optimiser."""
    used, momentum, counted = [], 0.996, 0
    for _ in range(steps):
        used.append(momentum)
        counted += 2
        momentum = 1 - (1 - 0.996) * (math.cos(math.pi * counted / steps) + 1) / 2
    return used


def official_momentum(steps: int) -> list[float]:
    """`cosine_scheduler` of the code of Caron et al. (2021), from 0.996 to 1, read at each step."""
    return (1 + 0.5 * (0.996 - 1) * (1 + np.cos(np.pi * np.arange(steps) / steps))).tolist()


# The literals are the 1st, 2nd, 6th, 11th and 20th value of 20.
@pytest.mark.parametrize(
    ("schedule", "by_hand", "literal"),
    [
        ("full_period", released_momentum, [0.996, 0.996097886967, 0.998, 1.0, 0.996097886967]),
        ("half_period", official_momentum, [0.996, 0.996024623319, 0.996585786438, 0.998, 0.999975376681]),
    ],
    ids=["released", "official"],
)
def test_the_teacher_uses_the_momentum_of_each_step(schedule, by_hand, literal):
    """A teacher of weight 0 that follows a student of weight 1 is off by the product of the momenta."""
    expected = by_hand(20)
    assert [expected[i] for i in (0, 1, 5, 10, 19)] == pytest.approx(literal, abs=1e-11)
    student = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(student.weight)
    objective = objectives.build(DINO(name="dino", classes=2, ema_schedule=schedule), 1, student).double()
    nn.init.ones_(student.weight)
    for step in range(20):
        objective.after_step(student, Clock(step // 5, 4, step, 5))
        off = 1 - objective.teacher_encoder.weight.item()
        assert off == pytest.approx(math.prod(expected[: step + 1]), rel=1e-12)


# 100 000 images at 512 and 256; the probes' 10 %, 2 %, 1 % and 0.2 % of them. Counted by hand.
@pytest.mark.parametrize(
    ("images", "batch_size", "steps", "last"),
    [
        *((100_000, 512, 196, 160), (100_000, 256, 391, 160)),
        *((10_000, 512, 20, 272), (2000, 512, 4, 464), (1000, 512, 2, 488), (200, 512, 1, 200)),
    ],
)
def test_an_epoch_visits_every_image_once_in_the_released_steps(images, batch_size, steps, last):
    batches = epoch_order("order", 1, 0, images, batch_size)
    assert (len(batches), len(batches[-1])) == (steps, last)
    assert torch.equal(torch.cat(batches).sort().values, torch.arange(images))


# --- initialisation --------------------------------------------------------------------------------------------------


def has_std(weight: torch.Tensor, std: float) -> None:
    """Five standard errors: the deviation of n normal numbers varies by std / sqrt(2n), their mean by std / sqrt(n)."""
    values = weight.detach().double().flatten()
    assert values.std().item() == pytest.approx(std, abs=5 * std / math.sqrt(2 * len(values)))
    assert values.mean().item() == pytest.approx(0, abs=5 * std / math.sqrt(len(values)))


# 1.137 / sqrt(fan-in) for the stem (27) and for the head's last two (4608, 512), where 1.137 = 1 / 0.8796;
# 1 / sqrt(512) for the head's first; Kaiming, fan-out, sqrt(2 / (k * k * outputs)), for the rest.
STDS = {
    "conv1": 0.218793,
    **{f"layer1.{block}.conv{i}": 0.058926 for block in (0, 1) for i in (1, 2)},
    **{f"layer2.{block}.conv{i}": 0.041667 for block in (0, 1) for i in (1, 2)},
    **{f"layer3.{block}.conv{i}": 0.029463 for block in (0, 1) for i in (1, 2)},
    **{f"layer4.{block}.conv{i}": 0.020833 for block in (0, 1) for i in (1, 2)},
    **{"layer2.0.downsample.0": 0.125, "layer3.0.downsample.0": 0.088388, "layer4.0.downsample.0": 0.0625},
    **{"resizer.conv1": 0.044194, "resizer.conv2": 0.016748, "resizer.conv3": 0.050243},
}


def test_every_convolution_starts_at_the_released_scale():
    torch.manual_seed(0)
    model = encoders.build(ResNet(head="expand", dim=2048), 64)
    convolutions = {name: module.weight for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    assert convolutions.keys() == STDS.keys()
    for name, weight in convolutions.items():
        has_std(weight, STDS[name])


def test_torchvision_starts_at_the_same_scales():
    """The table above, checked against the library whose initialisation the released code keeps beyond the stem."""
    torch.manual_seed(0)
    for name, module in resnet18(weights=None).named_modules():
        if isinstance(module, nn.Conv2d) and name != "conv1":
            has_std(module.weight, STDS[name])


@every_default
def test_every_linear_layer_starts_at_scale_002_and_every_batch_norm_as_the_identity(content):
    torch.manual_seed(0)
    objective = objectives.build(content, 512, nn.Flatten())
    for key, parameter in objective.named_parameters():
        if key.endswith("original0"):
            assert (parameter == 1).all()  # magnitudes of DINO's prototypes
        elif parameter.dim() == 2:
            has_std(parameter, 0.02)
        else:
            assert (parameter == (1 if key.endswith("weight") else 0)).all(), key


# Linear: 512 * 200 + 200. MLP: 512 * 2048 + 2048 * 2048 + 2048 * 200 + 200, and twice 2 * 2048 of the batch norms.
@pytest.mark.parametrize(("probe", "parameters"), [(Linear(kind="linear"), 102_600), (MLP(kind="mlp"), 5_660_872)])
def test_probes_have_the_published_size_and_start(probe, parameters):
    module = heads.Heads([probe, probe], 512, 200, generator("probe", 1))
    assert sum(parameter[0].numel() for parameter in module.parameters()) == parameters
    for key, parameter in module.named_parameters():
        assert torch.equal(parameter[0], parameter[1])  # all heads start from the same draw
        if parameter.dim() == 3:
            has_std(parameter[0], 0.02)
        else:
            assert (parameter == (1 if key.endswith("weight") else 0)).all(), key


# --- optimisation of pretraining -------------------------------------------------------------------------------------


def test_pretraining_takes_the_steps_of_adam_on_clipped_gradients(synthetic, make_run, tmp_path, monkeypatch):
    """Three epochs of two batches of 32: rates 0, 1 and 1/2 times 2e-3 / 8, and 3e-4 with its tenths, unscaled.

    Each step is worked out in NumPy from the raw gradients: clip by value, add the decay, then Adam (Kingma and Ba).
    What is differentiated is the loss of the method plus the cross-entropy of the online evaluation.
    """
    clip, decay, betas = 1e-3, 0.1, (0.9, 0.999)
    ssl_rates, online_rates = [0, 2.5e-4, 1.25e-4], [3e-4, 3e-5, 3e-6]
    seen, before, raw, moments, clipped = {}, {}, {}, {}, []

    class Watch(pretrain.Pretraining):
        def on_train_start(self):
            self.objective.register_forward_hook(lambda module, inputs, terms: seen.update(loss=terms.loss.item()))
            self.online.register_forward_hook(lambda module, inputs, logits: seen.update(logits=logits.detach()))

        def on_train_batch_start(self, batch, batch_idx):
            super().on_train_batch_start(batch, batch_idx)
            before.update({name: p.detach().double().numpy().copy() for name, p in self.named_parameters()})

        def training_step(self, batch, batch_idx):
            total = super().training_step(batch, batch_idx)
            labels = read(synthetic).labels[self.order(self.current_epoch)[batch_idx]]
            online = cross_entropy(np.eye(4)[labels], softmax(seen["logits"].double().numpy()))
            assert total.item() == pytest.approx(seen["loss"] + online, rel=1e-5)
            return total

        def configure_gradient_clipping(self, optimizer, **keys):
            raw.update({name: p.grad.double().numpy().copy() for name, p in self.named_parameters()})
            super().configure_gradient_clipping(optimizer, **keys)

        def on_train_batch_end(self, outputs, batch, batch_idx):
            t = 2 * self.current_epoch + batch_idx + 1
            for name, parameter in self.named_parameters():
                online = name.startswith("online.")
                rate = (online_rates if online else ssl_rates)[self.current_epoch]
                clipped.append(np.abs(raw[name]).max() > clip)
                grad = np.clip(raw[name], -clip, clip) + (0 if online else decay) * before[name]
                first, second = moments.get(name, (0, 0))
                first, second = betas[0] * first + (1 - betas[0]) * grad, betas[1] * second + (1 - betas[1]) * grad**2
                moments[name] = first, second
                mean, spread = first / (1 - betas[0] ** t), np.sqrt(second / (1 - betas[1] ** t))
                step = parameter.detach().double().numpy() - before[name]
                rounding = 1e-7 * np.abs(before[name]).max() + 1e-4 * rate  # float32: of the sum, and of the moments
                expected = -rate * mean / (spread + 1e-8)
                np.testing.assert_allclose(step, expected, rtol=1e-3, atol=rounding, err_msg=name)
            super().on_train_batch_end(outputs, batch, batch_idx)

    monkeypatch.setattr(pretrain, "Pretraining", Watch)
    run = make_run("cissl", optim={"clip_value": clip, "weight_decay": decay})
    cpu = Execution(device="cpu", precision="32", progress=False)
    pretrain.pretrain(run, 1, synthetic, tmp_path, cpu)
    assert len(clipped) == 6 * len(before) and any(clipped) and not all(clipped)


def test_the_online_evaluation_starts_as_every_linear_layer(synthetic, make_run):
    torch.manual_seed(0)
    online = pretrain.Pretraining(make_run(), 1, read(synthetic), Execution(), fused=False).online
    has_std(online.weight, 0.02)
    assert online.weight.shape == (4, 64) and not online.bias.any()


# --- optimisation of probes ------------------------------------------------------------------------------------------


def trained(group: list[Linear | MLP], z: np.ndarray, labels: np.ndarray) -> tuple[list, list]:
    """Parameters of the probes before and after their training: arrays with the heads first, in float64."""
    made, start = [], []

    class Kept(heads.Heads):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)
            start.extend(parameter.detach().double().numpy().copy() for parameter in self.parameters())

    given = task(torch.from_numpy(z), labels, len(labels), seed=3)
    fit_and_score(group, heads.RECIPE._replace(heads=Kept), given, given.train, given.train)
    return start, [parameter.detach().double().numpy() for parameter in made[0].parameters()]


def blobs(n: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Three classes of points around a wave each."""
    labels = np.arange(n) % 3
    return scale * (wave((3, DIM), 0.3)[labels] + 0.8 * wave((n, DIM), 2.0)), labels


def test_linear_probes_follow_sgd_in_numpy():
    """520 rows are a batch of 512 and one of 8; the features are so large that some gradients exceed the clip of 2.

    Rates: 0.3 * 512 / 256 = 0.6 times 1, 0.853553, 1/2 and 0.146447, the half cosine at quarters.
    """
    z, labels = blobs(520, 8.0)
    decays = [1e-1, 1e-3, 0.0]
    group = [Linear(kind="linear", weight_decay=decay, epochs=4) for decay in decays]
    (start_w, start_b), (end_w, end_b) = trained(group, z, labels)
    clipped = []
    for head_number, decay in enumerate(decays):
        w, b = start_w[head_number], start_b[head_number]
        velocity_w = velocity_b = 0.0
        for epoch, factor in enumerate((1, 0.853553390593, 0.5, 0.146446609407)):
            for rows in epoch_order("probe order", 3, epoch, 520, 512):
                x = z.astype(np.float32).astype(np.float64)[rows]
                error = softmax(x @ w.T + b) - np.eye(3)[labels[rows]]
                grad_w, grad_b = error.T @ x / len(x), error.mean(0)
                clipped.append(np.abs(grad_w) > 2)
                velocity_w = 0.9 * velocity_w + np.clip(grad_w, -2, 2) + decay * w
                velocity_b = 0.9 * velocity_b + np.clip(grad_b, -2, 2) + decay * b
                w, b = w - 0.6 * factor * velocity_w, b - 0.6 * factor * velocity_b
        np.testing.assert_allclose(end_w[head_number], w, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(end_b[head_number], b, rtol=1e-4, atol=1e-4)
    assert np.any(clipped) and not np.all(clipped)
    assert np.abs(end_w[0] - end_w[2]).max() > 0.01, "the weight decays must differ in effect, or this shows nothing"


def test_mlp_probes_follow_torchs_own_modules_in_float64():
    z, labels = blobs(60, 1.0)
    decays = [1e-1, 0.0]
    group = [
        MLP(kind="mlp", hidden=7, weight_decay=decay, epochs=3, batch_size=32, clip_value=0.05) for decay in decays
    ]
    start, end = trained(group, z, labels)
    for head_number, decay in enumerate(decays):
        model = nn.Sequential(
            *(nn.Linear(DIM, 7, bias=False), nn.BatchNorm1d(7), nn.ReLU()),
            *(nn.Linear(7, 7, bias=False), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3)),
        ).double()
        for parameter, values in zip(model.parameters(), start):
            parameter.data = torch.from_numpy(values[head_number].copy())
        sgd = torch.optim.SGD(model.parameters(), lr=1, momentum=0.9, weight_decay=decay)
        for epoch, factor in enumerate((1, 0.75, 0.25)):  # the half cosine at thirds
            sgd.param_groups[0]["lr"] = 0.3 * 32 / 256 * factor
            for rows in epoch_order("probe order", 3, epoch, 60, 32):
                sgd.zero_grad()
                nn.functional.cross_entropy(model(torch.from_numpy(z)[rows]), torch.from_numpy(labels)[rows]).backward()
                nn.utils.clip_grad_value_(model.parameters(), 0.05)
                sgd.step()
        for parameter, values in zip(model.parameters(), end):
            np.testing.assert_allclose(values[head_number], parameter.detach().numpy(), rtol=1e-3, atol=1e-5)


def test_a_linear_probe_ends_at_the_optimum_of_scikit_learn():
    """Mean cross-entropy + decay / 2 (|W|^2 + |b|^2) has one minimum; a constant column stands for the bias."""
    z, labels = blobs(90, 1.0)
    decays = [0.1, 0.01]
    group = [Linear(kind="linear", weight_decay=decay, epochs=400) for decay in decays]
    _, (w, b) = trained(group, z, labels)
    for head_number, decay in enumerate(decays):
        reference = LogisticRegression(C=1 / (90 * decay), fit_intercept=False, tol=1e-8, max_iter=10_000)
        reference.fit(np.column_stack([z, np.ones(90)]), labels)
        np.testing.assert_allclose(w[head_number], reference.coef_[:, :-1], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(b[head_number], reference.coef_[:, -1], rtol=1e-3, atol=1e-4)


# --- subsets ---------------------------------------------------------------------------------------------------------


# The test part of train_test_split(rows, test_size=fraction, stratify=labels, random_state=1) in scikit-learn 1.1.3
# with NumPy 1.23.5, the nearest to the authors' 1.1.2 and 1.23.1 that could be had: the first rows, and the first 16
# digits of the SHA-256 of the whole draw as little-endian int64.
@pytest.mark.parametrize(
    ("fraction", "each", "first", "digest"),
    [
        (0.002, 1, [1852, 98486, 19060, 78962, 73954, 25452], "8b1aba73ee92e4df"),
        (0.01, 5, [39243, 79599, 72804, 93706, 10746, 4278], "b46de614b1755c68"),
        (0.02, 10, [44402, 91722, 5771, 23645, 21778, 84193], "b98ad44be8aa108d"),
        (0.1, 50, [50460, 16883, 39084, 95484, 66585, 56651], "e752a3687c521049"),
    ],
    ids=["0.2 %", "1 %", "2 %", "10 %"],
)
def test_the_published_subsets_are_drawn_row_by_row(fraction, each, first, digest):
    labels = np.repeat(np.arange(200), 500)  # rows lie class by class, as ImageFolder lists them
    rows = stratified(labels, fraction, seed=1)
    assert (np.bincount(labels[rows]) == each).all()
    assert rows[:6].tolist() == first
    assert hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest().startswith(digest)
