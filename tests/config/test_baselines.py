"""experiments/baselines.yaml: what its rows take from the papers of the methods, and from the protocol of W-MSE."""

import pytest

from issl.spec.run import RunSpec

# Settings beside the defaults, which tests/spec/test_spec.py freezes.
OF_TABLE_1 = {
    "DCL": {},
    "Barlow Twins": {},
    "VICReg": {},
    "W-MSE 2": {"size": 256, "iterations": 4, "out": 128},  # --emb 128 --w_size 256 --w_iter 4
    "W-MSE 4": {"size": 256, "out": 128},  # --emb 128 --w_size 256
    "SIGReg (LeJEPA)": {},
    "BYOL": {"ema": 0.99},
    "SimSiam": {},
    "MoCo v3": {},
    "SwAV": {"queue": 3840},
}


def rows(plan, experiment) -> dict[str, RunSpec]:
    return {row.label: row.run for row in plan.rows[experiment]}


def test_the_methods_have_their_published_settings_and_nothing_is_tuned(paper):
    found = rows(paper, "baselines")
    assert [*found] == ["untrained", "SimCLR", *OF_TABLE_1, "DINO", "CISSL", "DISSL"]
    for name, own in OF_TABLE_1.items():
        assert found[name].objective.model_dump(exclude_defaults=True, exclude={"name"}) == own, name


def test_every_method_has_the_recipe_of_table_1(paper):
    table = rows(paper, "table1_contrastive") | rows(paper, "table1_distillation")
    for name, run in rows(paper, "baselines").items():
        if name in ("SimCLR", "CISSL", "DINO", "DISSL"):
            assert run == table[name]  # so it is trained once
        elif name != "untrained":
            simclr = table["SimCLR"]
            assert (run.data, run.encoder) == (simclr.data, simclr.encoder)
            assert run.augment.model_copy(update={"number": 2}) == simclr.augment
            assert run.optim.model_copy(update={"batch_size": 512}) == simclr.optim
            assert run.optim.batch_size * run.augment.number == 1024, name  # views in a batch


# python -m train --dataset tiny_in --epoch 1000 --lr 2e-3 --emb 128 [--num_samples 4 --bs 256], README of their code,
# which has 512 images in a batch, Adam with an l2 penalty of 1e-6 and a projector with a hidden layer of 1024.
def test_the_protocol_of_wmse_is_that_of_its_authors(paper):
    found = rows(paper, "baselines_wmse")
    assert {"SimCLR", "BYOL", "W-MSE 2", "W-MSE 4", "Barlow Twins", "VICReg"} <= found.keys()
    for name, run in found.items():
        o = run.optim
        assert (o.epochs, o.optimizer, o.weight_decay, o.clip_value, o.drop_last) == (1000, "adam", 1e-6, 0, True)
        assert o.lr * o.batch_size / 256 == pytest.approx(2e-3), name
        assert (o.batch_size, run.augment.number) == ((256, 4) if name == "W-MSE 4" else (512, 2))
        assert (run.encoder.arch, run.encoder.head, run.encoder.dim) == ("resnet18", "none", 512)
        assert name == "DISSL" or (run.objective.out, run.objective.hidden) == (128, 1024), name
    assert found["SimCLR"].objective.temperature == 0.5  # --tau
    assert found["BYOL"].objective.ema == 0.99  # --byol_tau


def test_the_paper_and_two_small_presets_have_them_and_only_on_request(plans):
    for root, plan in plans.items():
        named = [name for name in plan.rows if name.startswith("baselines")]
        small = {root: ["baselines", "baselines_rank_me"] for root in ("results/mini", "results/tiny")}
        assert named == ({"results": ["baselines", "baselines_rank_me", "baselines_wmse"]} | small).get(root, [])
        assert all(plan.config.experiments[name].on_request for name in named)
        assert not any("baselines" in target for target in plan.targets())


@pytest.mark.parametrize("preset", ["mini", "tiny"])
def test_small_presets_have_small_parts_for_whitening(plans, preset):
    """At least twice as many images as dimensions, as the authors have."""
    found = [run for run in rows(plans[f"results/{preset}"], "baselines").values() if run.objective.name == "wmse"]
    assert len(found) == 2
    for run in found:
        assert run.optim.batch_size >= run.objective.size >= 2 * run.objective.out
