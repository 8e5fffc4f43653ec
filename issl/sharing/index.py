"""The index of published runs: which runs and seeds a folder has, and the size and SHA-256 of each of their files."""

import json
import re
from pathlib import Path
from typing import Any, Self

from pydantic import Field, NonNegativeInt, model_validator

from issl.config.plan import RUN_FILES
from issl.config.validation import validate
from issl.errors import UserError, nearest
from issl.spec.value import Value

INDEX = "index.json"
VERSION = 1
OUTPUTS = tuple(name for name in RUN_FILES if not name.endswith("/"))  # of a pretraining; every published run has them

_ID = r"[a-z0-9_]+-[0-9a-f]{8}"  # of an encoding; of a grid of probes
_RUN = re.compile(r"[a-z0-9_]+-z\d+-e\d+-[0-9a-f]{8}")
_SCORES = re.compile(rf"features/{_ID}\.json|probes/{_ID}/{_ID}-s\d+\.(csv|json)")


class File(Value):
    """A published file."""

    size: NonNegativeInt
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


Files = dict[str, File]  # by name, below the folder of a seed


class Index(Value):
    """Everything that a source has. No name in it leads out of the folder of its seed."""

    version: int = VERSION
    runs: dict[str, dict[NonNegativeInt, Files]] = {}

    @model_validator(mode="after")
    def _names(self) -> Self:
        for run, seeds in self.runs.items():
            if not _RUN.fullmatch(run):
                raise ValueError(f"{run!r} is not the id of a run")
            for seed, files in seeds.items():
                if strange := [name for name in files if not belongs(name)]:
                    raise ValueError(f"{run}, seed {seed}: {strange[0]!r} is not a file of a run")
                if missing := [name for name in OUTPUTS if name not in files]:
                    raise ValueError(f"{run}, seed {seed}: lacks {missing[0]}")
        return self

    def with_seed(self, run: str, seed: int, files: Files) -> "Index":
        """A copy with these files of a run and seed, in order of their names."""
        runs = {**self.runs, run: {**self.runs.get(run, {}), seed: dict(sorted(files.items()))}}
        return Index(runs={name: dict(sorted(seeds.items())) for name, seeds in sorted(runs.items())})

    def text(self) -> str:
        """The content of its file."""
        content = {"version": self.version, "runs": self.model_dump(mode="json")["runs"]}
        return json.dumps(content, indent=1) + "\n"


def belongs(name: str) -> bool:
    """Whether a path below the folder of a seed is one of the files that are published."""
    return name in OUTPUTS or _SCORES.fullmatch(name) is not None


def place(run: str, seed: int, name: str = "") -> str:
    """The path of a published file, or of a seed's folder: that of the workflow's own results."""
    return f"runs/{run}/s{seed}/{name}".rstrip("/")


def read_index(content: bytes, where: str) -> Index:
    """Parses an index; `where` names it. Raises UserError for anything else, and for the index of a newer version."""
    try:
        found: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: damaged, or not the index of published runs ({error})") from None
    if isinstance(found, dict) and found.get("version", VERSION) != VERSION:
        raise UserError(f"{where}: has version {found['version']}, but this issl reads version {VERSION}: update issl")
    return validate(Index, found, where)


def seeds_of(index: Index, run: str, source: str) -> list[int]:
    """The seeds that a source has of a run. Raises UserError if there are none, with the nearest id."""
    if run not in index.runs:
        raise UserError(f"{source}: has no run '{run}', {nearest(run, index.runs)}")
    return [*index.runs[run]]


def files_in(folder: Path) -> list[str]:
    """Names of the files of a seed's folder that are published, in order."""
    candidates = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sorted(name for name in (path.relative_to(folder).as_posix() for path in candidates) if belongs(name))
