"""Encoders that cannot be are refused before anything runs, and what was found good is remembered."""

import json
import subprocess
import sys

import pytest
from project import PROJECT

from issl.config.plan import load
from issl.errors import UserError
from issl.models import encoders as models
from issl.planning import possible
from issl.planning.possible import refuse_impossible
from issl.spec.encoder import ResNet, Timm

MINE = """
experiments:
  mine:
    on_request: true
    rows:
      first: {{method: simclr, encoder: {encoder}{more}}}
    probes: [{{weight_decay: [1.0e-4, 1.0e-5, 1.0e-6]}}]
    table: {{caption: An encoder.}}
"""


@pytest.fixture
def planned(plans, tmp_path):
    """The plans with a row of this encoder, and other keys."""

    def build(encoder: str, more: str = ""):
        (tmp_path / "mine.yaml").write_text(MINE.format(encoder=encoder, more=more))
        found = load(overlays=["mine.yaml"])
        return {root: plan for root, plan in found.items() if root == "results"}

    return build


def test_a_row_with_an_encoder_of_timm_leaves_the_settings_of_a_resnet_behind(planned, tmp_path):
    """Here those of the presets, which say how wide a ResNet is."""
    planned("{arch: timm/test_vit, dim: 64, patch: 8, bottleneck: 32}")
    plans = load(overlays=["mine.yaml"], settings=["presets={tiny: {experiments: {mine: {}}}}"])
    for root in ("results", "results/tiny"):
        [row] = plans[root].rows["mine"]
        assert row.run.encoder == Timm(arch="timm/test_vit", dim=64, patch=8, bottleneck=32)
    [ours] = {row.run.encoder for row in plans["results/tiny"].rows["table1_contrastive"][:1]}
    assert ours == ResNet(arch="resnet10", width=8, dim=64, bottleneck=64)


@pytest.mark.parametrize(
    ("encoder", "says"),
    [
        ("{arch: timm/test_vit, dim: 64, width: 8}", "encoder.width: unknown key, allowed: arch, bottleneck, dim"),
        ("{arch: vit_small, dim: 64}", "encoder.arch: unknown 'vit_small', allowed: resnet10, resnet18, resnet34, "),
        ("{arch: tim/test_vit, dim: 64}", "encoder.arch: unknown 'tim/test_vit', allowed: resnet10"),
        ("{arch: resnet19}", "encoder.arch: must be 'resnet10', 'resnet18', 'resnet34' or 'resnet50', not 'resnet19'"),
        ("{arch: timm/test_vit, pool: max}", "encoder.pool: must be 'token' or 'mean', not 'max'"),
        ("17", "must be a mapping of keys to values, not 17"),
    ],
)
def test_a_mistake_in_an_encoder_is_one_line(planned, encoder, says):
    with pytest.raises(UserError) as error:
        planned(encoder)
    assert str(error.value).startswith("mine.yaml:6: experiments.mine") and says in str(error.value)


@pytest.mark.parametrize(
    ("encoder", "more", "says"),
    [
        ("{arch: timm/test_vitt, dim: 64}", "", "arch: unknown 'timm/test_vitt', did you mean 'timm/test_vit'?"),
        ("{arch: timm/test_vit}", "", "dim 512: timm/test_vit alone gives 64"),
        ("{arch: timm/test_vit, dim: 64, patch: 5}", "", "64 px is no multiple of its patches of 5 px"),
        # Images to score are of another size than those to train on.
        (
            "{arch: timm/test_vit, dim: 64}",
            ", features: {resize: 50, crop: 50}",
            "arch timm/test_vit cannot take images of 50 px",
        ),
    ],
)
def test_what_only_timm_knows_is_refused_before_anything_runs(planned, encoder, more, says):
    pytest.importorskip("timm")
    with pytest.raises(UserError) as error:
        refuse_impossible(planned(encoder, more))
    line = str(error.value)
    assert line.startswith("preset paper: experiments.mine: row 'first': encoder: ") and says in line
    assert not possible.CACHE.exists()


def test_the_encoders_that_the_docs_show_can_be_built(plans, tmp_path):
    pytest.importorskip("timm")
    section = (PROJECT / "docs/extending.md").read_text().partition("## Use another encoder\n")[2]
    (tmp_path / "mine.yaml").write_text(section.partition("```yaml\n")[2].partition("```")[0])
    found = load(overlays=["mine.yaml"])["results"]
    refuse_impossible({found.root: found})
    assert [row.run.encoder.dim for row in found.rows["my_encoders"]] == [512, 2048, 768, 384, 384, 1536]
    assert len(json.loads(possible.CACHE.read_text())) == 4


def test_an_encoder_is_checked_once(planned, monkeypatch):
    pytest.importorskip("timm")
    good, checked = "{arch: timm/test_vit, dim: 64}", []
    check = models.check
    monkeypatch.setattr(models, "check", lambda *given: checked.append(given) or check(*given))
    refuse_impossible(planned(good))
    refuse_impossible(planned(good))
    assert [(size, sizes) for _, size, sizes in checked] == [(64, [64])]
    refuse_impossible(planned(good, ", features: {crop: 32}"))
    assert checked[1][1:] == (64, [64, 32])
    monkeypatch.setattr(possible.metadata, "version", lambda package: "9.9")  # another timm may have other names
    refuse_impossible(planned(good))
    assert len(checked) == 3 and len(json.loads(possible.CACHE.read_text())) == 3


def test_without_timm_the_row_is_refused(planned, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"row 'first': encoder: arch timm/test_vit needs timm, .* pip install timm$"):
        refuse_impossible(planned("{arch: timm/test_vit, dim: 64}"))


def test_a_config_of_resnets_is_planned_without_torch():
    code = "from issl.config.plan import load; from issl.planning.possible import refuse_impossible; import sys; "
    code += "refuse_impossible(load()); print({'torch', 'timm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
