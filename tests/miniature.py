"""The preset *tiny* at sizes at which a training takes a second: for tests of what happens around it."""

from project import PROJECT

from issl.config.presets import read_config

PROBES = {"kind": "mlp", "hidden": 16, "epochs": 2}

# An overlay for `presets.tiny`: as many images as the probes of all its experiments need.
MINIATURE = {
    "data": {"synthetic": {"classes": 4, "image_size": 16, "train_per_class": 32, "test_per_class": 8}},
    "defaults": {"encoder": {"bottleneck": 16}, "optim": {"batch_size": 32}},
    "experiments": {
        "table1_contrastive": {"seeds": None},
        "table2_mlp": {
            "probes": [
                PROBES | {"weight_decay": [1e-4, 1e-6]},
                PROBES | {"weight_decay": [1e-3, 1e-6], "fraction": 0.5},
            ]
        },
        "fig7a": {"probes": [{"weight_decay": 1e-6, "fraction": [1.0, 0.5]}]},
    },
}


def without_references() -> dict:
    """The project's config, but the tables of the preset *tiny* have the paper's rows alone."""
    raw = read_config(PROJECT / "config.yaml")
    for experiment in ("table1_contrastive", "table1_distillation", "table2_mlp"):
        del raw["presets"]["tiny"]["experiments"][experiment]["rows"]
    return raw
