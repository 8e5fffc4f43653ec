# %% [markdown]
# # A released encoder through torch.hub
#
# Loads a ResNet-50 that was pretrained with DISSL on ImageNet without labels, represents the images of STL10 with it,
# and fits a linear probe. The authors print 96.00 % for this model in their own notebook, with the probe's $C$ chosen
# on the test split and BatchNorm in train mode; here $C$ is chosen on a part of train, so expect a little difference.
#
# `FAST = True` needs no network: new weights, 96 generated images, under a minute on one CPU thread; its accuracy says
# only that everything works. `FAST = False` downloads weights (90 MB) and STL10 (2.6 GB), and wants a GPU.

# %%
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit
from sklearn.svm import LinearSVC
from torch.utils.data import DataLoader
from torchvision.datasets import STL10

FAST = True
CLONE = next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "hubconf.py").exists())
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)

# %% [markdown]
# ## Encoder
# `source="local"` takes the code from this clone; the weights come from the authors' release.

# %%
encoder = torch.hub.load(str(CLONE), "dissl_resnet50_dNone_e400_m6", source="local", pretrained=not FAST).to(DEVICE)

# %% [markdown]
# It comes in **eval mode**, and must stay there: in train mode BatchNorm would normalise with the mean and variance of
# the batch at hand instead of those learned on ImageNet, so that the representation of an image would depend on its
# neighbours in the batch. The authors' hub returns a model in train mode; call `.eval()` when you use theirs.

# %%
assert not encoder.training
print(encoder.preprocess)

# %% [markdown]
# ## Data
# Lists of (image, label). The generated ones are stripes of four directions, with noise.


# %%
def stripes(count, seed):
    """Images of 96 px, as those of STL10, and their labels; the label says how the stripes run."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :96]
    for label in np.arange(count) % 4:
        angle, phase = label * np.pi / 4, rng.uniform(0, 2 * np.pi)
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) / 3 + phase)[..., None]
        yield Image.fromarray(np.uint8(127 + 90 * wave + rng.uniform(-30, 30, (96, 96, 3)))), int(label)


if FAST:
    train, test = list(stripes(64, seed=1)), list(stripes(32, seed=2))
else:
    train, test = (STL10("data", split, download=True) for split in ("train", "test"))

# %% [markdown]
# ## Representations
# One pass over clean images, in half precision on a GPU; (n, 2048), used as they are.


# %%
def collate(batch):
    return torch.stack([encoder.preprocess(image) for image, _ in batch]), [label for _, label in batch]


@torch.no_grad()
def features(data):
    half = torch.autocast(DEVICE, torch.float16, enabled=DEVICE == "cuda")
    z, y = [], []
    for images, labels in DataLoader(data, 32 if FAST else 512, collate_fn=collate):
        with half:
            z.append(encoder(images.to(DEVICE)).float().cpu())
        y += labels
    return torch.cat(z).numpy(), y


# %% [markdown]
# ## Linear probe
# $C$ is the best of seven on a fifth of train; the probe is then fitted on all of train, and scored once on test.

# %%
held_out = StratifiedShuffleSplit(1, test_size=0.2, random_state=0)
probe = GridSearchCV(LinearSVC(random_state=0), {"C": np.logspace(-3, 0, 7)}, cv=held_out).fit(*features(train))
print(f"C = {probe.best_params_['C']:.3g}, test accuracy: {probe.score(*features(test)):.1%}")
