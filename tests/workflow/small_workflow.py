"""A preset *tiny* whose whole workflow takes seconds, and edits of it."""

import copy
from pathlib import Path
from typing import Any

import yaml
from project import PROJECT

from issl.config.layers import stacked
from issl.config.presets import read_config

PROBES = [{"weight_decay": [1e-4, 1e-6], "epochs": 2}]
# Two rows of a table and two points of a figure: four pretrainings. None removes what the preset has.
SMALL = {
    "data": {"synthetic": {"image_size": 16, "train_per_class": 8, "test_per_class": 4, "classes": 4}},
    "defaults": {"encoder": {"width": 8, "dim": 64, "bottleneck": 16}, "optim": {"epochs": 2, "batch_size": 16}},
    "patches": {"dim": {"encoder": {"dim": 64}}, "epochs": {"optim": {"epochs": 3}}},
    "methods": {name: {"objective": {"hidden": 16, "out": 8}} for name in ("simclr", "cissl")},
    "experiments": {
        "table1_contrastive": {
            "seeds": None,
            "rows": {"untrained": None, "+ epochs": None, "+ aug.": None, "+ dim.": None},
            "probes": PROBES,
            "claims": {
                "a larger dimension helps": None,
                "longer training helps": None,
                "stronger augmentations help": None,
            },
        },
        "table1_distillation": None,
        "table2_mlp": None,
        "baselines": None,
        "baselines_rank_me": None,
        "fig7a": None,
        "fig7b": {"claims": {"a lower log loss goes with a higher accuracy, DISSL": None}},
        "fig7c": {
            "claims": {
                "accuracy rises with the dimension, MLP": None,
                "and saturates, MLP": None,
                "an MLP probe needs less dimension": None,
            },
            "base": {"with": []},
            "grid": {"method": ["cissl"], "encoder.dim": [16, 64]},
            "figure": {"reference": None},
            "probes": PROBES,
        },
    },
}


def with_preset(name: str, overlay: dict) -> dict:
    """The project's config with an overlay on one of its presets."""
    return stacked(read_config(PROJECT / "config.yaml"), {"presets": {name: overlay}})


def small_config() -> dict:
    """The project's config with `SMALL` on its preset *tiny*."""
    return with_preset("tiny", SMALL)


def edited(config: dict, path: tuple[str, ...], value: Any) -> dict:
    """A copy of the config in which one key of the preset *tiny* has another value."""
    changed = copy.deepcopy(config)
    place = changed["presets"]["tiny"]
    for key in path[:-1]:
        place = place.setdefault(key, {})
    place[path[-1]] = value
    return changed


def write(folder: Path, config: dict) -> None:
    """Writes a config as the folder's config.yaml."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
