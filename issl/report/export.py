"""Exports a run's encoder: its weights, and a model card that describes them."""

import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from issl import __version__
from issl.errors import UserError
from issl.hub import WEIGHTS, read_run
from issl.jobs import provenance
from issl.jobs.files import sha256, whole
from issl.jobs.records import read_record
from issl.models import encoders, weights
from issl.report.results import read_scores, selected
from issl.report.tables import Grid, markdown_table
from issl.report.templates import render
from issl.spec.data import data_id
from issl.spec.encoder import Encoder, ResNet, Timm
from issl.spec.objective import Supervised, Untrained
from issl.spec.run import RunSpec, run_id

CARD = "README.md"
RECORD = ("seed", "data", "device", "precision", "git", "versions")  # keys of run.json that a model card uses
HEADER = ("data", "probe", "labels", "selected on held-out train", "selected on test", "among the settings")


def export(run: Path, out: Path) -> tuple[Path, Path]:
    """Writes the weights of the run in folder `run`, and a model card; returns both paths.

    `out` is a folder, or NAME.safetensors, with the card beside it as NAME.md. `hub.load` reads either. Raises
    UserError, and writes neither file, if the run is not finished, its weights do not fit its encoder, or a file exists
    already.
    """
    spec, tensors = read_run(run)
    encoder = encoders.build(spec.encoder, spec.data.image_size)
    weights.fill(encoder, tensors, run)  # loading checks the same
    record, accuracies = _record(run / "run.json"), _accuracies(run / "probes")
    one_file = out.suffix == ".safetensors"
    file, card = (out, out.with_suffix(".md")) if one_file else (out / WEIGHTS, out / CARD)
    for path in (file, card):
        if path.exists():
            raise UserError(f"{path}: exists already; delete it, or choose another --out")
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    with whole(file) as weights_part, whole(card) as card_part:
        shutil.copyfile(run / WEIGHTS, weights_part)
        facts = {
            "representation": f"{spec.encoder.dim} dimensions{_pooled(spec.encoder)}, not normalised",
            "images": f"{spec.data.image_size} x {spec.data.image_size} px",
            "parameters": f"{parameters:,}".replace(",", " "),
            "file": f"`{file.name}`, SHA-256 {sha256(weights_part)}",
            **_provenance(spec, record),
            "licence": f"MIT, as issl {__version__}, which wrote this; the training images have their own terms",
        }
        text = _card(spec, record["seed"], facts, accuracies, out.name)
        card_part.write_text(text, encoding="utf-8")
    return file, card


def _record(path: Path) -> dict[str, Any]:
    """Provenance of the run, from its run.json."""
    if not path.exists():
        raise UserError(f"{path.parent}: not the folder of a finished run: it has no {path.name}")
    return read_record(path, "delete it and pretrain again", RECORD)


def _accuracies(probes: Path) -> str:
    """A Markdown table of all scores on disk, each probe once; empty if there are none."""
    tables = [_selected(path) for path in sorted(probes.glob("*/*.csv"))]
    if not tables:
        return ""
    rows = pd.concat(tables).drop_duplicates().sort_values(["data", "kind", "n_labels"], ascending=[True, True, False])
    cells = [
        (
            row["data"],
            row["kind"],
            f"{row['n_labels']} ({100 * row['fraction']:g} %)",
            f"{100 * row['val_selected']:.1f}",
            f"{100 * row['test_selected']:.1f}",
            row["tried"],
        )
        for row in rows.to_dict("records")
    ]
    return (
        "Top-1 accuracy in per cent on the test split, of probes trained on frozen features. The setting of a probe "
        "was selected on a held-out part of the training labels, or on the test split, as in the paper's code; the "
        "second selection is optimistic. If only one setting was tried, nothing was selected.\n\n"
        + markdown_table(Grid(HEADER, cells), left=(0, 1, 5))
    )


def _selected(path: Path) -> pd.DataFrame:
    """One row per kind of probe and subset, with both selections of the setting and all settings tried."""
    scores = read_scores(path)
    scores = scores[scores["metric"] == "top-1"].assign(data=path.parent.name)
    keys = ["data", "kind", "fraction", "n_labels", "n_test"]
    tried = scores.groupby(keys, sort=False)["setting"].agg("; ".join)
    return selected(scores).merge(tried.rename("tried").reset_index(), on=keys)


def _provenance(spec: RunSpec, record: dict[str, Any]) -> dict[str, str]:
    git = record["git"]
    commit = "not known" if git is None else git["commit"] + (", with uncommitted changes" if git["dirty"] else "")
    return {
        "data": f"{data_id(spec.data)}; SHA-256 of the prepared images {record['data']['images']}",
        "trained on": f"{record['device']}, precision {record['precision']}",
        "versions": provenance.listed(record["versions"]),
        "commit": commit,
    }


def _card(spec: RunSpec, seed: int, facts: dict[str, str], accuracies: str, place: str) -> str:
    return render(
        "card.md.j2",
        run=run_id(spec),
        seed=seed,
        summary=_summary(spec),
        facts=facts,
        place=place,
        dim=spec.encoder.dim,
        accuracies=accuracies,
        settings=spec.model_dump_json(indent=2),
    )


def _pooled(encoder: Encoder) -> str:
    """How the representation comes from the maps, where that is the same for all encoders of a class."""
    match encoder:
        case ResNet():
            return ": the spatial average of the last map"
        case Timm(head="none", pool=None):
            return f": as timm's {encoder.arch.removeprefix('timm/')} pools them"
        case Timm(pool="token"):
            return ": from the class token"
    return ""


def _summary(spec: RunSpec) -> str:
    """What the encoder is, in one sentence."""
    arch = re.sub("^resnet", "ResNet-", spec.encoder.arch)
    if isinstance(spec.objective, Untrained):
        return f"{arch} with random initial weights, not trained."
    how = (
        "with labels"
        if isinstance(spec.objective, Supervised)
        else f"without labels by {type(spec.objective).__name__}"
    )
    return f"{arch} pretrained {how} for {spec.epochs} epochs on {spec.data.name}."
