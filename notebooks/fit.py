# %% [markdown]
# # An encoder in ten lines
# `issl.fit` trains on an array of images, with any method of this project. The images here are drawn: 20 kinds of grey
# plaids. Put your own in their place: uint8, `(n, S, S, 3)`.

# %%
import numpy as np
from sklearn.linear_model import LogisticRegression

import issl

FAST = True
EPOCHS = 9 if FAST else 100

# %%
rng = np.random.default_rng(0)
x, y = np.mgrid[-1:1:16j, -1:1:16j]
angles, waves = rng.uniform(0, np.pi, (20, 2)), rng.uniform(0.3, 0.9, (20, 2))  # of the two gratings of each kind


def draw(label):  # (16, 16) uint8, with gratings at any phase
    along = x * np.cos(angles[label])[:, None, None] + y * np.sin(angles[label])[:, None, None]
    gratings = np.sin(2 * np.pi * (along / waves[label][:, None, None] + rng.uniform(size=(2, 1, 1))))
    return (128 + 50 * gratings.sum(0) + 8 * rng.normal(size=x.shape)).clip(0, 255).astype(np.uint8)


labels = np.arange(2500) % 20
images = np.stack([draw(label) for label in labels])
train, test = slice(0, 1500), slice(1500, None)

# %% [markdown]
# ## Train
# Labels are not needed; with some, the history has the accuracy of a linear classifier that learns along.

# %%
settings = {"encoder": {"arch": "resnet10", "width": 8}, "epochs": EPOCHS, "optim": {"batch_size": 64, "lr": 0.016}}
dissl = {"name": "dissl", "classes": 128, "hidden": 256, "bottleneck": 64}
trained = issl.fit(images[train], method=dissl, **settings)
untrained = issl.fit(images[train], method="untrained", **settings)
trained.history[["epoch", "loss", "log_loss", "images_per_second"]]

# %% [markdown]
# ## Use
# A logistic regression on the representations, in per cent of the test images. By chance: 5 %.


# %%
def accuracy(encoder):
    z, z_test = encoder.transform(images[train]), encoder.transform(images[test])
    mean, std = z.mean(0), z.std(0) + 1e-6
    probe = LogisticRegression(max_iter=1000).fit((z - mean) / std, labels[train])
    return 100 * probe.score((z_test - mean) / std, labels[test])


accuracies = {"trained": accuracy(trained), "untrained": accuracy(untrained)}
print(accuracies)
