"""Lightning without its ballast: lean here, and nothing is hidden from anybody else."""

import subprocess
import sys

import pytest

CODE = """
import sys
from issl.training import lightning
loaded = {name.partition(".")[0] for name in sys.modules}
assert "pytorch_lightning" in loaded
assert not loaded & lightning.UNSEEN, loaded & lightning.UNSEEN

from importlib import metadata, util
for name in lightning.UNSEEN:
    assert metadata.version(name) and util.find_spec(name), name
import scipy.signal, matplotlib.pyplot, torchvision  # for others they are there, and whole
"""


@pytest.mark.slow
def test_training_imports_neither_scipy_nor_matplotlib():
    subprocess.run([sys.executable, "-c", CODE], check=True)


@pytest.mark.slow
def test_a_lightning_imported_earlier_is_used_unchanged():
    code = "import pytorch_lightning; from issl.training.lightning import pl; assert pl is pytorch_lightning"
    code += "; import scipy.signal"
    subprocess.run([sys.executable, "-c", code], check=True)
