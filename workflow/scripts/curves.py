"""History of every run -> one page of training curves."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from issl.curves import page
from issl.files import write_text
from issl.logs import to_file

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with to_file(snakemake.log[0]):
    histories = {"/".join(Path(path).parts[-3:-1]): pd.read_csv(path) for path in snakemake.input}
    write_text(snakemake.output[0], page(histories))
