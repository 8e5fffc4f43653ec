"""The loop that trains probes on features of every kind."""

import dataclasses

import numpy as np
import pytest
import torch
from in_memory import task

from issl.errors import UserError
from issl.probing import cached, heads
from issl.probing.side_by_side import fit_and_score, groups
from issl.spec.probe import MLP, Cached, Linear, ProbeGrid

KINDS = {"linear": (Linear, heads.RECIPE), "mlp": (MLP, heads.RECIPE), "cached": (Cached, cached.RECIPE)}
every_kind = pytest.mark.parametrize("kind", KINDS)


def probe(kind, **keys):
    return KINDS[kind][0](kind=kind, **{"hidden": 16} if kind == "mlp" else {}, **keys)


def trained(group, given, fit_on=None, score_on=None):
    rows = (given.train if fit_on is None else fit_on), (given.test if score_on is None else score_on)
    return fit_and_score(group, KINDS[group[0].kind][1], given, *rows)


# --- which probes see each other ---


@pytest.mark.parametrize(
    ("kind", "together", "apart"),
    [
        ("linear", ["weight_decay"], ["fraction", "epochs", "batch_size", "lr", "momentum", "clip_value", "holdout"]),
        (
            "mlp",
            ["weight_decay"],
            ["fraction", "epochs", "batch_size", "lr", "momentum", "clip_value", "holdout", "hidden"],
        ),
        ("cached", ["weight_decay", "lr", "optimizer"], ["batch_size", "epochs", "momentum", "batch_norm", "holdout"]),
    ],
)
def test_only_probes_that_see_the_same_batches_are_trained_together(kind, together, apart):
    model, recipe = KINDS[kind]
    one, others = model(kind=kind), {"optimizer": "lars", "batch_norm": True, "epochs": 7, "hidden": 7, "batch_size": 7}
    for name in (*together, *apart):
        other = model(**{"kind": kind, name: others.get(name, 0.5)})
        assert len(groups([one, other], recipe.own)) == (1 if name in together else 2), name
    assert set(model.model_fields) - {"kind"} == {*together, *apart}


@every_kind
def test_a_probe_does_not_depend_on_the_others_of_its_grid(blobs, kind):
    one, other = probe(kind, epochs=5), probe(kind, epochs=7, weight_decay=1e-2)
    evaluate = {"cached": cached.evaluate}.get(kind, heads.evaluate)
    given = task(*blobs, 200, seed=1)
    [alone] = evaluate(ProbeGrid(probes=(one,)), given)
    _, beside = evaluate(ProbeGrid(probes=(other, one)), given)
    assert beside._replace(holdout=None) == alone


@every_kind
def test_it_does_not_matter_where_the_rows_of_a_split_are(blobs, kind):
    (z, labels), group = blobs, (probe(kind, epochs=2), probe(kind, epochs=2, weight_decay=1e-2))
    evaluate, rows = {"cached": cached.evaluate}.get(kind, heads.evaluate), np.arange(2200)
    first = task(*blobs, 200, seed=1)
    last = task(z.roll(-200, 0), np.roll(labels, -200), 200, seed=1)
    last = dataclasses.replace(last, train=rows[2000:], test=rows[:2000])
    assert evaluate(ProbeGrid(probes=group), last) == evaluate(ProbeGrid(probes=group), first)


def test_accuracies_are_held_out_only_where_probes_compete_on_equal_labels(blobs):
    """Also where they cannot be trained together."""
    shares = [(1.0, 2), (1.0, 3), (0.5, 2)]
    grid = ProbeGrid(probes=tuple(probe("linear", fraction=part, epochs=epochs) for part, epochs in shares))
    scores = heads.evaluate(grid, task(*blobs, 200, seed=1))
    assert [(score.fraction, score.n_labels, score.holdout is None) for score in scores] == [
        *((1.0, 200, False), (1.0, 200, False)),
        (0.5, 100, True),
    ]


# --- training ---


@pytest.mark.parametrize(("precision", "expected"), [("fp16", True), ("bf16", False), ("32", False)])
def test_the_loss_is_scaled_where_gradients_are_in_float16(blobs, monkeypatch, precision, expected):
    scaled, scale = [], torch.amp.GradScaler.scale
    monkeypatch.setattr(
        *(torch.amp.GradScaler, "scale"),
        lambda self, loss: scaled.append(bool(scale(self, loss) != loss)) or scale(self, loss),
    )
    trained([probe("linear", epochs=1, batch_size=100)], task(*blobs, 200, seed=1, precision=precision))
    assert scaled == [expected] * 2


@every_kind
def test_training_on_row_numbers_equals_training_on_copies(blobs, kind):
    """129 rows are two batches of 64 and one of a single row, which an MLP's batch norm leaves out."""
    (z, labels), draws = blobs, np.random.default_rng(1)
    fit_on, score_on = draws.permutation(200)[:129], 200 + draws.permutation(2000)[:1500]
    group = [probe(kind, weight_decay=decay, epochs=3, batch_size=64) for decay in (1e-1, 0.0)]
    both = np.concatenate([fit_on, score_on])
    copies = task(z[both], labels[both], 129, seed=3)
    assert trained(group, task(*blobs, 200, seed=3), fit_on, score_on) == trained(group, copies)


@pytest.mark.parametrize(
    ("kind", "keys", "last"),
    [("linear", {}, [1]), ("mlp", {}, []), ("cached", {}, [1]), ("cached", {"batch_norm": True}, [])],
    ids=["linear", "mlp", "cached", "cached, batch norm"],
)
def test_a_last_batch_of_one_image_has_no_variance_and_is_left_out(blobs, kind, keys, last):
    """Batches of 11 leave one of 199 rows over: batch norm would refuse it. Without batch norm it counts."""
    given = task(*blobs, 200)
    trained([probe(kind, batch_size=11, epochs=1, **keys)], given, given.train[:199])
    assert given.features.read == [*[11] * 18, *last, 2000]


@every_kind
def test_a_diverging_probe_stops_with_an_error(blobs, kind):
    group = [probe(kind, lr=1e30, epochs=3, weight_decay=decay) for decay in (1e-2, 1e-3)]
    given = task(*blobs, 200)
    says = rf"a {kind} probe on 150 labels diverged in epoch \d; lower the lr of one of: .*lr 1e\+30.*; .*lr 1e\+30"
    with pytest.raises(UserError, match=says):
        trained(group, given, given.train[:150])


def test_scores_do_not_depend_on_how_many_rows_are_scored_at_once(blobs, monkeypatch):
    given, group = task(*blobs, 200), [probe("linear", epochs=2, weight_decay=decay) for decay in (0.1, 0.0)]
    at_once = trained(group, given)
    monkeypatch.setattr("issl.probing.side_by_side.SCORED", 7)
    assert trained(group, given) == at_once
    assert given.features.read[-1] == 2000 % 7
