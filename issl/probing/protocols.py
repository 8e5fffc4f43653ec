"""One protocol on one encoding: from features, or images, to a score file."""

import logging
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from issl.data.arrays import Arrays, read
from issl.jobs import device, provenance
from issl.jobs.execution import Execution
from issl.jobs.files import write_csv, write_json
from issl.jobs.locks import build_once
from issl.probing import augmented, cached
from issl.probing.scores import COLUMNS
from issl.probing.shards import Features
from issl.spec.protocol import SVM, Augmented, Cached, Encoding, Logistic, Protocol, protocol_id

log = logging.getLogger(__name__)


def probe(
    protocol: Protocol,
    seed: int,
    encoding: Encoding,
    features: Path | None,
    data: Path,
    out: Path,
    threads: int,
    execution: Execution,
) -> None:
    """Writes one row for each setting of the protocol to the CSV `out`, and what made it to a JSON beside it.

    Every row has top-1, top-5 and mean per-class accuracy on the test split; where a choice among settings may fall
    on it, also those of the same classifier trained without a held-out part of the training images, on that part.
    `features` is a folder of shards, which only the augmented protocol does without. Waits while another process makes
    the same scores, and then takes them. Raises what the protocols raise.
    """
    outputs = [out, out.with_suffix(".json")]
    build_once(outputs, lambda: _probe(protocol, seed, encoding, features, data, out, threads, execution))


def _probe(
    protocol: Protocol,
    seed: int,
    encoding: Encoding,
    features: Path | None,
    data: Path,
    out: Path,
    threads: int,
    execution: Execution,
) -> None:
    began, made_by = time.monotonic(), provenance.describe("probe_weights")
    on_cpu = isinstance(protocol, Logistic | SVM)  # scikit-learn
    where = torch.device("cpu") if on_cpu else device.choose(execution)
    kind = "32" if on_cpu else device.precision(execution, where)
    arrays = read(data)
    part = out.with_suffix(".part")
    if isinstance(protocol, Augmented):
        rows = augmented.evaluate(protocol, seed, encoding, arrays, part, threads, where, kind)
    elif isinstance(protocol, Cached):
        rows = _on_the_device(protocol, seed, features, arrays, where, kind, execution.resident_gb)
    else:
        rows = _in_memory(protocol, seed, features, arrays, threads)
    about = {"protocol": protocol_id(protocol), "seed": seed, "spec": protocol.model_dump(mode="json")}
    about |= {"data": arrays.meta["sha256"]} | device.usage(where, kind, began) | made_by
    write_json(out.with_suffix(".json"), about)
    write_csv(out, COLUMNS, rows)
    shutil.rmtree(part, ignore_errors=True)


def _on_the_device(
    protocol: Cached, seed: int, features: Path, arrays: Arrays, where: torch.device, kind: str, resident_gb: float
) -> list[dict[str, Any]]:
    z = Features(features, len(arrays.labels), where, resident_gb)
    splits = arrays.split("train"), arrays.split("test")
    return cached.evaluate(protocol, seed, z, arrays.labels, *splits, where, kind)


def _in_memory(protocol: Protocol, seed: int, features: Path, arrays: Arrays, threads: int) -> list[dict[str, Any]]:
    from issl.probing import classifiers  # scikit-learn and SciPy take seconds, and the other protocols need neither

    n = len(arrays.labels)
    z = Features(features, n, torch.device("cpu"), 0)(torch.arange(n)).numpy()
    return classifiers.evaluate(protocol, seed, z, arrays.labels, arrays.split("train"), arrays.split("test"), threads)
