"""A run's encoder as others get it: its weights, and a model card that says what they are."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from issl import __version__
from issl.errors import UserError
from issl.hub import WEIGHTS, read_run
from issl.jobs.files import sha256, whole
from issl.models import encoders, weights
from issl.probing.heads import COLUMNS
from issl.report.results import chosen
from issl.report.tables import Grid, markdown_table
from issl.spec.data import data_id
from issl.spec.run import RunSpec, run_id

CARD = "README.md"
RECORD = ("seed", "data", "device", "precision", "git", "versions")  # what a card takes from run.json
HEADER = ("probe", "labels", "epochs", "chosen on held-out train", "chosen on test", "among the weight decays")


def export(run: Path, out: Path) -> tuple[Path, Path]:
    """Writes the weights of the run in folder `run`, and a model card; gives both paths.

    `out` is a folder, or a name that ends in .safetensors, beside which the card gets the ending .md. `hub.load` reads
    either. Raises UserError where the run is not finished, its weights are not its encoder's, or something is there
    already: neither file is written then.
    """
    spec, tensors = read_run(run)
    encoder = encoders.build(spec.encoder, spec.data.image_size)
    weights.fill(encoder, tensors, run)  # whoever loads the file will do so
    record, accuracies = _record(run / "run.json"), _accuracies(run / "probes")
    one_file = out.suffix == ".safetensors"
    file, card = (out, out.with_suffix(".md")) if one_file else (out / WEIGHTS, out / CARD)
    for path in (file, card):
        if path.exists():
            raise UserError(f"{path}: is there already; delete it, or choose another --out")
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    with whole(file) as weights_part, whole(card) as card_part:
        shutil.copyfile(run / WEIGHTS, weights_part)
        facts = {
            "representation": f"{spec.encoder.dim} dimensions: the spatial average of the last map, not normalised",
            "images": f"{spec.data.image_size} x {spec.data.image_size} px",
            "parameters": f"{parameters:,}".replace(",", " "),
            "file": f"`{file.name}`, SHA-256 {sha256(weights_part)}",
            **_provenance(spec, record),
            "licence": f"MIT, as issl {__version__}, which wrote this; the training images have terms of their own",
        }
        text = _card(spec, record["seed"], facts, accuracies, out.name)
        card_part.write_text(text, encoding="utf-8")
    return file, card


def _record(path: Path) -> dict[str, Any]:
    """What made the run, from its run.json."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.parent}: not the folder of a finished run: it has no {path.name}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); delete it and pretrain again") from error
    if missing := [key for key in RECORD if not isinstance(record, dict) or key not in record]:
        raise UserError(f"{path}: lacks '{missing[0]}'; pretrain again")
    return record


def _accuracies(probes: Path) -> str:
    """A Markdown table of all scores that are on disk, each probe once; empty where there is none."""
    tables = [_scores(path) for path in sorted(probes.glob("*.csv"))]
    if not tables:
        return ""
    rows = pd.concat(tables).drop_duplicates().sort_values(["probe", "n_labels"], ascending=[True, False])
    [n_test] = rows["n_test"].unique()
    cells = [
        (
            row["probe"],
            f"{row['n_labels']} ({100 * row['fraction']:g} %)",
            str(row["probe_epochs"]),
            f"{100 * row['honest']:.1f}",
            f"{100 * row['published']:.1f}",
            row["tried"],
        )
        for row in rows.to_dict("records")
    ]
    return (
        f"Top-1 accuracy in per cent on {n_test} test images, of probes that were trained on frozen features. The "
        "weight decay of a probe was chosen on a held-out part of the training labels, or on the test split, as the "
        "paper's code does; the second choice flatters. Where only one was tried, nothing was chosen.\n\n"
        + markdown_table(Grid(HEADER, cells), left=(0, 5))
    )


def _scores(path: Path) -> pd.DataFrame:
    """One row a kind of probe and subset, with both choices of the weight decay and those that there were."""
    try:
        scores = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); delete it and run its probe again") from error
    if missing := [column for column in COLUMNS if column not in scores]:
        raise UserError(f"{path}: lacks the column '{missing[0]}'; delete it and run its probe again")
    if scores.empty or scores["test_acc"].isna().any():
        raise UserError(f"{path}: no test accuracy; delete it and run its probe again")
    subsets = [column for column in COLUMNS if column not in ("weight_decay", "test_acc", "holdout_acc")]
    decays = scores.groupby(subsets, sort=False)["weight_decay"].agg(lambda tried: ", ".join(f"{x:g}" for x in tried))
    picked = chosen(scores.assign(row=path.name)).drop(columns="row")
    return picked.merge(decays.rename("tried").reset_index(), on=subsets)


def _provenance(spec: RunSpec, record: dict[str, Any]) -> dict[str, str]:
    git = record["git"]
    commit = "not known" if git is None else git["commit"] + (", with uncommitted changes" if git["dirty"] else "")
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items() if version)
    return {
        "data": f"{data_id(spec.data)}; SHA-256 of the prepared images {record['data']['images']}",
        "trained on": f"{record['device']}, precision {record['precision']}",
        "versions": versions,
        "commit": commit,
    }


def _card(spec: RunSpec, seed: int, facts: dict[str, str], accuracies: str, place: str) -> str:
    method, arch = type(spec.objective).__name__, spec.encoder.arch.replace("resnet", "ResNet-")
    table = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    return f"""# {run_id(spec)}, seed {seed}

{arch} pretrained without labels by {method} for {spec.optim.epochs} epochs on {spec.data.name}.

| | |
|---|---|
{table}

## Load it

```python
from issl import hub

encoder = hub.load("{place}")  # in eval mode
z = encoder(encoder.preprocess(image)[None])  # PIL image -> (1, {spec.encoder.dim})
```

Without issl, `safetensors.torch.load_file` gives the tensors: their names are those of torchvision's ResNets, and
`resizer` is the expanding head, where there is one.

## Accuracy

{accuracies or "No probe of this run has been scored."}

## Settings

```json
{spec.model_dump_json(indent=2)}
```
"""
