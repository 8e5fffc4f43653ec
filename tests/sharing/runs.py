"""A finished run, as small as its files can be, and what tests ask of folders and servers of runs."""

import hashlib
import json
from http.server import SimpleHTTPRequestHandler

import numpy as np
from safetensors.numpy import save_file

from issl.report.results import SCORES
from issl.spec.probe import ProbeGrid, grid_id
from issl.spec.run import file_notes, run_id

HOST = "node17.example.org"
ENCODING = "synthetic-0123abcd"
GRID = ProbeGrid.model_validate({"probes": [{"kind": "linear", "weight_decay": decay} for decay in (1e-4, 1e-6)]})


def finished_run(root, spec, seed=1, accuracies=((0.5, 0.4), (0.44, 0.46))):
    """Writes a finished run with scores, (test, held out) per weight decay; returns the folder of its seed."""
    folder = root / "runs" / run_id(spec) / f"s{seed}"
    (folder / "features").mkdir(parents=True)
    (folder / "probes" / ENCODING).mkdir(parents=True)
    weights = {"conv1.weight": np.random.default_rng(seed).normal(size=(8, 3)).astype(np.float32)}
    save_file(weights, folder / "encoder.safetensors", metadata=file_notes(spec, seed))
    (folder / "history.csv").write_text("epoch,loss\n1,2.5\n")
    digest = hashlib.sha256((folder / "encoder.safetensors").read_bytes()).hexdigest()
    attempt = {"code": "0" * 8, "device": "CPU", "host": HOST, "started": "2026-01-01T00:00:00+00:00"}
    record = {
        **{"run": run_id(spec), "seed": seed, "spec": spec.model_dump(mode="json"), "data": {"images": "1" * 64}},
        **{"seconds": 2.5, "loss": 2.5, "attempts": [attempt], "host": HOST, "encoder_sha256": digest},
    }
    (folder / "run.json").write_text(json.dumps(record, indent=2) + "\n")
    (folder / f"features/{ENCODING}.json").write_text(json.dumps({"weights": digest, "host": HOST}))
    scores = folder / f"probes/{ENCODING}/{grid_id(GRID)}-s{seed}.csv"
    rows = [
        f"linear,weight decay {probe.weight_decay:g},{probe.weight_decay},1.0,100,50,top-1,{test},{held_out}\n"
        for probe, (test, held_out) in zip(GRID.probes, accuracies)
    ]
    scores.write_text(",".join(SCORES) + "\n" + "".join(rows))
    about = {"grid": grid_id(GRID), "seed": seed, "spec": GRID.model_dump(mode="json"), "host": HOST}
    scores.with_suffix(".json").write_text(json.dumps(about))
    (folder / "wandb").mkdir()
    (folder / "wandb/settings.json").write_text('{"api_key": "secret"}')
    (folder / ".run.lock").touch()
    return folder


class Handler(SimpleHTTPRequestHandler):
    """Serves files, and notes which."""

    def log_message(self, *_):
        self.server.asked.append(self.path)


def content(folder):
    """Every file below a folder, by its path, but hidden ones."""
    files = (path for path in folder.rglob("*") if path.is_file())
    paths = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return {name: data for name, data in paths.items() if not name.startswith(".") and "/." not in name}
