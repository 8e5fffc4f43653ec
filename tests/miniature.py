"""The preset *tiny* at sizes at which a training takes a second: for tests of what happens around it."""

PROBES = {"kind": "mlp", "hidden": 16, "epochs": 2}

WITHOUT_REFERENCE = {"rows": {"untrained": None}}

# An overlay for `presets.tiny`: as many images as the probes of all its experiments need.
MINIATURE = {
    "data": {"synthetic": {"classes": 4, "image_size": 16, "train_per_class": 32, "test_per_class": 8}},
    "defaults": {"encoder": {"bottleneck": 16}, "optim": {"batch_size": 32}},
    "experiments": {
        "table1_contrastive": {"seeds": None} | WITHOUT_REFERENCE,
        "table1_distillation": WITHOUT_REFERENCE,
        "table2_mlp": WITHOUT_REFERENCE
        | {
            "probes": [
                PROBES | {"weight_decay": [1e-4, 1e-6]},
                PROBES | {"weight_decay": [1e-3, 1e-6], "fraction": 0.5},
            ]
        },
        "fig7a": {"probes": [{"weight_decay": 1e-6, "fraction": [1.0, 0.5]}]},
    },
}
