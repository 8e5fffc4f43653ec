"""Heads: projectors and predictors on the representation; most are those of the released code of Dubois et al. 2022."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm


def init_(module: nn.Module) -> nn.Module:
    """Initialises every Linear (normal of scale 0.02, bias 0) and BatchNorm (1, 0) in place, and returns the module.

    The "truncated" normal of the released code has absolute limits of +-2, which a scale of 0.02 never reaches.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.modules.batchnorm._BatchNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
    return module


def mlp(
    dim: int,
    out: int,
    hidden: Sequence[int] = (),
    *,
    bottleneck: int | None = None,
    norm_out: bool = False,
    activation: type[nn.Module] = nn.ReLU,
    prototypes: bool = False,
) -> nn.Sequential:
    """A multi-layer perceptron, (n, dim) -> (n, out), with one hidden layer for each width in `hidden`.

    A hidden layer is Linear (no bias), BatchNorm, activation; the last layer is a Linear with bias. `bottleneck` limits
    the rank of that last layer: Linear (no bias), BatchNorm, Linear. `norm_out` appends a BatchNorm. `prototypes`
    l2-normalises the last hidden layer, and makes the rows of the last Linear unit vectors without bias.
    """
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(dim, width, bias=False), nn.BatchNorm1d(width), activation()]
        dim = width
    if prototypes:
        layers.append(Normalize())
    if bottleneck is not None:
        layers += [nn.Linear(dim, bottleneck, bias=False), nn.BatchNorm1d(bottleneck)]
        dim = bottleneck
    last = nn.Linear(dim, out, bias=not prototypes)
    layers.append(last)
    if norm_out:
        layers.append(nn.BatchNorm1d(out))
    head = init_(nn.Sequential(*layers))
    if prototypes:
        unit_rows_(last)
    return head


def linear(dim: int, out: int, *, bottleneck: int | None = None, norm_out: bool = False) -> nn.Sequential:
    """A linear head, (n, dim) -> (n, out): `mlp` without hidden layers. A bottleneck limits the rank of the map."""
    return mlp(dim, out, bottleneck=bottleneck, norm_out=norm_out)


def batch_norm_mlp(
    dim: int, out: int, hidden: Sequence[int], *, bias: bool = False, norm_out: bool = False
) -> nn.Sequential:
    """A projector or predictor with torch's initialisation, (n, dim) -> (n, out), with a layer for each `hidden` width.

    The usual head of methods that are not in the released code (BYOL, SimSiam, MoCo v3, SwAV). A hidden layer is
    Linear (no bias), BatchNorm, ReLU; the last layer is a Linear, with `bias` or without. `norm_out` appends a
    BatchNorm without scale and shift.
    """
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(dim, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
        dim = width
    layers.append(nn.Linear(dim, out, bias=bias))
    if norm_out:
        layers.append(nn.BatchNorm1d(out, affine=False))
    return nn.Sequential(*layers)


class Normalize(nn.Module):
    """l2-normalises each row, (n, dim) -> (n, dim)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1)


def unit_rows_(layer: nn.Linear) -> None:
    """Splits the weight into directions, which are trained, and magnitudes, which stay 1."""
    weight_norm(layer)
    nn.init.ones_(layer.parametrizations.weight.original0).requires_grad_(False)


class PrototypeHead(nn.Module):
    """DINO's head, (n, dim) -> (n, out): GELU layer, bottleneck, inner products with `out` unit prototypes.

    Linear, BatchNorm, GELU, then a Linear to the bottleneck, then a weight-normalised Linear whose magnitudes stay 1;
    none has a bias. With `normalize_after` the l2-normalisation follows the bottleneck, so outputs are cosines, as in
    Caron et al. 2021; otherwise it precedes the bottleneck, as in the released code of Dubois et al. 2022.
    """

    def __init__(self, dim: int, out: int, hidden: int, bottleneck: int, *, normalize_after: bool):
        super().__init__()
        self.normalize_after = normalize_after
        self.hidden = nn.Sequential(nn.Linear(dim, hidden, bias=False), nn.BatchNorm1d(hidden), nn.GELU())
        self.bottleneck = nn.Linear(hidden, bottleneck, bias=False)
        self.prototypes = nn.Linear(bottleneck, out, bias=False)
        init_(self)  # before the weight is split into magnitude and direction
        unit_rows_(self.prototypes)

    @property
    def magnitude(self) -> nn.Parameter:
        """Lengths of the prototypes, (out, 1): ones, not trained."""
        return self.prototypes.parametrizations.weight.original0

    @property
    def direction(self) -> nn.Parameter:
        """The prototypes before normalisation, (out, bottleneck)."""
        return self.prototypes.parametrizations.weight.original1

    def forward(self, z: Tensor, freeze_prototypes: bool = False) -> Tensor:
        x = self.hidden(z)  # (n, hidden)
        if not self.normalize_after:
            x = F.normalize(x, dim=1)
        x = self.bottleneck(x)  # (n, bottleneck)
        if self.normalize_after:
            x = F.normalize(x, dim=1)
        weight = self.prototypes.weight  # (out, bottleneck), unit rows
        return F.linear(x, weight.detach() if freeze_prototypes else weight)  # (n, out)
