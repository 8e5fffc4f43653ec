"""Tidy results and score files as tests need them."""

import pandas as pd

from issl.report.results import SCORES

# What a row says of its encoder where a test does not care.
ENCODER = {
    **{"family": "linear", "dim": 512, "epochs": 300, "batch_size": 512, "strength": 1.0, "blur": False},
    **{"released": False, "data": "tinyimagenet", "encoding": "tinyimagenet-00000000", "log_loss": 1.0},
}
PROBE = {
    **{"probe": "linear", "grid": "linear-00000000", "kind": "linear", "fraction": 1.0, "n_labels": 100},
    **{"n_test": 100, "metric": "top-1"},
}


def tidy(*rows, **facts):
    """(row, seed, weight decay, test accuracy, held-out accuracy) of linear probes; each row is an encoder."""
    frame = pd.DataFrame(rows, columns=["row", "seed", "weight_decay", "test_acc", "holdout_acc"])
    setting = [f"weight decay {decay:g}" for decay in frame["weight_decay"]]
    about = {"method": frame["row"], "encoder": frame["row"], **ENCODER, **PROBE, "setting": setting}
    return frame.assign(**about | facts)


# Two rows, two seeds, two weight decays; the test and the held-out labels disagree on the best of them.
TWO_ROWS = tidy(
    ("A", 1, 1e-4, 0.40, 0.50),
    ("A", 1, 1e-5, 0.45, 0.30),
    ("A", 2, 1e-4, 0.42, 0.20),
    ("A", 2, 1e-5, 0.41, 0.30),
    ("B", 1, 1e-4, 0.60, 0.50),
    ("B", 1, 1e-5, 0.50, 0.40),
    ("B", 2, 1e-4, 0.62, 0.50),
    ("B", 2, 1e-5, 0.50, 0.40),
)


def released(name, seed, accuracy):
    """The same of released weights, of which nobody knows the log loss."""
    unknown = dict.fromkeys(("batch_size", "strength", "blur", "log_loss"), float("nan"))
    return tidy((name, seed, 1e-6, accuracy, None), released=True, **unknown)


def write_scores(path, *lines, kind="linear", metric="top-1", **facts):
    """A score file: (setting, test accuracy, held-out accuracy) a line; other files may be put together with it."""
    about = {"weight_decay": 1e-6, "fraction": 1.0, "n_labels": 90, "n_test": 10_000} | facts
    rows = [
        {"kind": kind, "setting": setting, **about, "metric": metric, "test_acc": test, "holdout_acc": held_out}
        for setting, test, held_out in lines
    ]
    before = pd.read_csv(path) if path.exists() else None
    pd.concat([before, pd.DataFrame(rows, columns=list(SCORES))]).to_csv(path, index=False)
    return path
