"""Checks encoders before anything runs: that they can be built, and take every image that the plan gives them.

Settings of a ResNet are checked where they are read. Of other encoders only their libraries know more, and importing
those takes seconds; so it happens only if a config has such an encoder, and what was found good is remembered.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from issl.config.plan import Plan
from issl.config.resolve import PlannedRow
from issl.errors import UserError
from issl.jobs.files import write_json
from issl.spec.encoder import Encoder, ResNet
from issl.spec.value import short_hash

CACHE = Path("results/.planning/encoders.json")


def refuse_impossible(plans: Mapping[str, Plan]) -> None:
    """Raises UserError for the first row whose encoder cannot be built, or cannot take its images."""
    known = _known()
    fine: dict[str, str] = {}
    for plan in plans.values():
        for experiment, rows in plan.rows.items():
            for row in rows:
                if row.run and not isinstance(row.run.encoder, ResNet):
                    encoder, sizes = row.run.encoder, _sizes(row)
                    key = _key(encoder, sizes)
                    if key not in known and key not in fine:
                        where = f"preset {plan.preset}: experiments.{experiment}: row '{row.label}': encoder"
                        _check(encoder, sizes, where)
                    fine[key] = f"{encoder.arch}, {', '.join(map(str, sizes))} px"
    if fine.keys() - known.keys():
        with suppress(UserError, OSError):  # somebody else's results, say: the next call checks again
            write_json(CACHE, known | fine)


def _sizes(row: PlannedRow) -> list[int]:
    """Sides in pixels of the images that the encoder of a row gets; it is built for the first of them."""
    views = (view.size for view in row.run.augment.views)
    probed = [row.encoding.crop] if row.probes else []
    return [*dict.fromkeys([row.run.data.image_size, *views, *probed])]


def _check(encoder: Encoder, sizes: Iterable[int], where: str) -> None:
    print(f"checking encoder {encoder.arch}, once, for {CACHE}", file=sys.stderr)
    from issl.models import encoders  # imports torch

    first, *_ = sizes
    try:
        encoders.check(encoder, first, sizes)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _known() -> dict[str, str]:
    try:
        return json.loads(CACHE.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # there is none yet, or it is being replaced
        return {}


def _key(encoder: Encoder, sizes: Iterable[int]) -> str:
    """Names an encoder with the code that builds it."""
    module = find_spec(encoder.implementation.partition(":")[0])
    source = Path(module.origin).read_text(encoding="utf-8") if module and module.origin else ""
    try:
        version = metadata.version("timm")
    except metadata.PackageNotFoundError:
        version = "none"
    return short_hash(f"{source} {version} {encoder.canonical()} {sizes}")
