# %% [markdown]
# # DISSL, from the images to the accuracy
# Dubois et al., *Improving Self-Supervised Learning by Characterizing Idealized Representations*, NeurIPS 2022: views,
# encoder, objective, training, linear probe. `FAST = False` is the setting of the authors' notebook (STL10, ResNet-18),
# for a GPU; `FAST = True` shows the same on drawn patterns with a small encoder, in about a minute on a CPU.
# The authors' notebook prints an accuracy on images that its probe was fitted on; here it is that of the test split.

# %%
import numpy as np
import torch
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit
from sklearn.svm import LinearSVC
from torch import nn
from torch.distributions import Categorical
from torch.nn import functional as F
from torch.utils.data import DataLoader, StackDataset
from torchvision.datasets import STL10
from torchvision.models import resnet18
from torchvision.ops import MLP, Conv2dNormActivation
from torchvision.transforms import v2
from torchvision.utils import make_grid

FAST = True
SIZE, DIM, EPOCHS, BATCH, WORKERS = (32, 128, 6, 32, 0) if FAST else (96, 512, 100, 256, 8)
CLASSES, HIDDEN = (256, 512) if FAST else (16384, 2048)  # equivalence classes; width of the teacher's first layer
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)

# %% [markdown]
# ## Images and views
# Views of an image are random crops, flips and changes of its colours. Labels are for the probe alone.


# %%
def draw(label, rng):  # (3, SIZE, SIZE) uint8: place, angle, wavelength, greys and noise are random
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j] + rng.uniform(-0.5, 0.5, (2, 1, 1))
    angle, wave = rng.uniform(-0.2, 0.2), 2 * np.pi / rng.uniform(0.4, 0.8)
    u, v = wave * (np.cos(angle) * x + np.sin(angle) * y), wave * (np.cos(angle) * y - np.sin(angle) * x)
    stripes = np.sin(u), np.sin(v), np.sin((u + v) / 1.4), np.sin(u + 2 * np.sin(v))
    others = np.sin(u) * np.sin(v), np.sin(np.hypot(u, v)), np.sin(6 * np.arctan2(v, u)), np.cos(u) + np.cos(v) - 0.9
    greys = rng.permutation([80, 170])
    image = np.where([*stripes, *others][label] > 0, *greys) + 25 * rng.normal(size=(3, SIZE, SIZE))
    return image.clip(0, 255).astype(np.uint8)


class Patterns(STL10):
    """STL10 with other images: eight classes of patterns; all are grey, for colours are easier to sort by."""

    def __init__(self, split, transform):
        number, seed = {"unlabeled": (1024, 0), "train": (500, 1), "test": (1000, 2)}[split]
        self.transform, self.target_transform = transform, None
        self.labels, rng = np.arange(number) % 8, np.random.default_rng(seed)
        self.data = np.stack([draw(label, rng) for label in self.labels])


def load(split, transform):
    return Patterns(split, transform) if FAST else STL10("data", split, transform=transform, download=True)


normalize = v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
clean = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), normalize])
crop_and_flip = [v2.RandomResizedCrop(SIZE, scale=(0.2, 1)), v2.RandomHorizontalFlip()]
jitter = v2.RandomApply([v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)], p=0.8)
unlabeled = load("unlabeled", v2.Compose([*crop_and_flip, jitter, v2.RandomGrayscale(p=0.1), clean]))
pairs = StackDataset(unlabeled, unlabeled)  # each image twice, each time with an augmentation of its own
loader = DataLoader(pairs, BATCH, shuffle=True, num_workers=WORKERS)

(x1, _), (x2, _) = next(iter(loader))  # (B, 3, SIZE, SIZE) each
grid = make_grid(torch.cat([x1[:8], x2[:8]]), normalize=True, scale_each=True)
v2.functional.to_pil_image(grid).resize((880, 224))  # below each view, the other of the same image

# %% [markdown]
# ## Encoder and heads
# The teacher sorts representations into equivalence classes. The student, which learns to say the same, is linear, as
# the probe will be: this is what makes the classes linearly predictable from the representation.

# %%
encoder = resnet18()  # (n, 3, SIZE, SIZE) -> (n, DIM)
encoder.fc = nn.Identity()
if FAST:
    convs = [Conv2dNormActivation(n, m, stride=2) for n, m in ((3, 32), (32, 64), (64, DIM))]
    encoder = nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten())
teacher = MLP(DIM, [HIDDEN, 512, CLASSES], norm_layer=nn.BatchNorm1d)  # batch norm and ReLU after all but the last
student = nn.Linear(DIM, CLASSES)

# %% [markdown]
# ## Objective
# With $t^v$ and $s^v$ the probabilities that teacher (at temperature 1/2) and student give to view $v$ of $B$ images:
# $$\mathcal{L} = \tfrac12 \sum_{v \neq w} \mathrm{CE}(t^v, s^w) -
#   \lambda \, \tfrac12 \sum_v \mathrm{H}\big[\tfrac1B \sum_i t^v_i\big] +
#   \beta \, \tfrac12 \sum_{v \neq w} \mathrm{CE}(t^v, t^w), \qquad
#   \mathrm{CE}(p, q) = -\tfrac1B \sum_{i,m} p_{im} \log q_{im}$$
# The student predicts the class of the other view; all classes are used; the class of a view is certain, and the other
# view's too. Nothing is detached: each term trains the teacher.


# %%
def dissl_loss(teacher1, teacher2, student1, student2, lambda_=2.3, beta=0.8, temperature=0.5):
    """Logits of teacher and student for both views, (B, CLASSES) each, to the loss."""
    teacher1, teacher2 = teacher1.float() / temperature, teacher2.float() / temperature
    student1, student2 = student1.float(), student2.float()
    t1, t2 = teacher1.softmax(1), teacher2.softmax(1)

    distillation = (F.cross_entropy(student2, t1) + F.cross_entropy(student1, t2)) / 2
    maximality = (Categorical(t1.mean(0)).entropy() + Categorical(t2.mean(0)).entropy()) / 2
    invariance = (F.cross_entropy(teacher2, t1) + F.cross_entropy(teacher1, t2)) / 2
    return distillation - lambda_ * maximality + beta * invariance


# %% [markdown]
# ## Training

# %%
modules = nn.ModuleList([encoder, teacher, student]).to(device)
optimizer = torch.optim.Adam(modules.parameters(), lr=2e-3, weight_decay=1e-6)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
scaler = torch.amp.GradScaler(enabled=device == "cuda")

for epoch in range(EPOCHS):
    for (x1, _), (x2, _) in loader:
        with torch.autocast(device, torch.float16, enabled=device == "cuda"):
            z1, z2 = encoder(x1.to(device)), encoder(x2.to(device))  # (B, DIM), batch norm sees one view at a time
            loss = dissl_loss(teacher(z1), teacher(z2), student(z1), student(z2))
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    scheduler.step()
    print(f"epoch {epoch + 1} of {EPOCHS}: loss {loss.item():.3f}")

# %% [markdown]
# ## Linear probe
# A linear SVM on the representations of clean images. Its C is the best one on a held-out fifth of the train split; it
# is then fitted on the whole of it. The test split is used once.


# %%
@torch.no_grad()
def represent(split):
    batches = DataLoader(load(split, clean), 256, num_workers=WORKERS)
    z, y = zip(*((encoder(x.to(device)).cpu(), y) for x, y in batches))
    return torch.cat(z).numpy(), torch.cat(y).numpy()


encoder.eval()
held_out = StratifiedShuffleSplit(1, test_size=0.2, random_state=0)
probe = GridSearchCV(LinearSVC(), {"C": np.logspace(-3, 0, 7)}, cv=held_out).fit(*represent("train"))
accuracy = probe.score(*represent("test"))
print(f"test accuracy {accuracy:.1%}, C = {probe.best_params_['C']:.3g}")
