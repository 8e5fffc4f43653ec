"""The pages beside published runs: a model card with their results, and how to cite them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from issl.report.results import SELECTIONS, read_scores, selected
from issl.report.tables import Grid, markdown_table
from issl.sharing.index import Index, place

CARD, CITATION = "README.md", "CITATION.cff"
HEADER = ("run", "data", "probe", "labels", "metric", "seeds", "val-selected (%)", "test-selected (%)")
POINT = ["run", "data", "probe", "n_labels", "metric"]
PAPER = {
    "type": "conference-paper",
    "title": "Improving Self-Supervised Learning by Characterizing Idealized Representations",
    "authors": [
        {"given-names": "Yann", "family-names": "Dubois"},
        {"given-names": "Tatsunori", "family-names": "Hashimoto"},
        {"given-names": "Stefano", "family-names": "Ermon"},
        {"given-names": "Percy", "family-names": "Liang"},
    ],
    "collection-title": "Advances in Neural Information Processing Systems (NeurIPS)",
    "year": 2022,
}


def card(index: Index, folder: Path) -> str:
    """The README.md of published runs: a model card with the results, in its front matter as a model index."""
    table = results(index, folder)
    front = {
        "license": "mit",
        "library_name": "issl",
        "tags": ["self-supervised-learning", "image-feature-extraction"],
        "model-index": [{"name": run, "results": list(_entries(rows))} for run, rows in table.groupby("run")],
    }
    rows = [
        (
            *(str(row[name]) for name in POINT),
            str(row["seeds"]),
            *(f"{100 * row[name]:.1f}" for name in SELECTIONS[::-1]),
        )
        for row in table.to_dict("records")
    ]
    runs = "\n".join(f"- `{run}`, seeds {', '.join(map(str, seeds))}" for run, seeds in index.runs.items())
    return TEXT.format(
        front=yaml.safe_dump(front, sort_keys=False),
        runs=runs,
        results=markdown_table(Grid(HEADER, rows), left=(0, 1, 2, 4)) if rows else "No probe has scored them.",
    )


def results(index: Index, folder: Path) -> pd.DataFrame:
    """Means over seeds of both selections, in [0, 1], by `POINT`, with the number of seeds; the first metric alone."""
    scores = [
        selected(read_scores(folder / place(run, seed, name)))
        .drop_duplicates("n_labels")
        .assign(run=run, **_probe(name))
        for run, seeds in index.runs.items()
        for seed, files in seeds.items()
        for name in files
        if name.endswith(".csv") and name.startswith("probes/")
    ]
    columns = [*POINT, "seeds", *SELECTIONS]
    if not scores:
        return pd.DataFrame(columns=columns)
    every = pd.concat(scores).groupby(POINT, sort=True)
    return every[list(SELECTIONS)].mean().assign(seeds=every.size()).reset_index()[columns]


def _probe(name: str) -> dict[str, str]:
    """What a score file is of, by its path ``probes/<data>/<probe>-s<seed>.csv``."""
    _, data, file = name.split("/")
    return {"data": data, "probe": file.rpartition("-s")[0]}


def _entries(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Results in the form of the hub's model index, one for each data set and probe."""
    for (data, probe, n_labels), points in rows.groupby(["data", "probe", "n_labels"]):
        yield {
            "task": {"type": "image-classification", "name": f"probe {probe}, {n_labels} labels"},
            "dataset": {"type": data.rpartition("-")[0], "name": data},
            "metrics": [
                {"type": "accuracy", "name": f"{point['metric']}, {words}", "value": round(100 * point[name], 2)}
                for point in points.to_dict("records")
                for name, words in (("val_selected", "val-selected"), ("test_selected", "test-selected"))
            ],
        }


def citation() -> str:
    """A CITATION.cff, which Zenodo reads too."""
    content = {
        "cff-version": "1.2.0",
        "message": "If you use these encoders, please cite them and the paper whose methods they are of.",
        "title": "Encoders pretrained with issl",
        "type": "dataset",
        "license": "MIT",
        "authors": [{"name": "The people who trained these encoders"}],
        "references": [PAPER],
    }
    return yaml.safe_dump(content, sort_keys=False)


TEXT = """---
{front}---

# Encoders pretrained with issl

Image encoders, each named after its settings: the end of its name is the hash of them, so a run with the same name is
the same training. `index.json` lists every file with its size and SHA-256.

{runs}

## Use them

```sh
issl pull RUN --from FOLDER_OR_ADDRESS_OF_THIS    # into the results of a clone of issl, checked
```

```python
from issl import hub

encoder = hub.load("runs/RUN/s1")  # here, a folder of this; weights are safetensors, and nothing in them is executed
```

## Results

Accuracies of probes on the frozen encoders, on the test split, as means over seeds. The setting of a probe was selected
on held-out training labels (val-selected) or on the test split (test-selected), which is optimistic.

{results}

Names of machines and paths are left out of the records (`run.json`). The licence is that of issl; the training images
have their own terms.
"""
