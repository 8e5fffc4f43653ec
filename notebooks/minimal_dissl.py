# %% [markdown]
# # DISSL from top to bottom
# Distillation of equivalence classes (Dubois, Hashimoto, Ermon, Liang; NeurIPS 2022). A *teacher* (projector) assigns
# every view of an image to one of $C$ classes: the same class for all views, and all classes equally often. A *student*
# (predictor), linear as the probe will be, predicts that class from the representation.
#
# `FAST = True`: scikit-learn's digits on one CPU thread, about a minute. `FAST = False`: the setting of the authors'
# minimal notebook, ResNet-18 for 100 epochs on the unlabelled images of STL10, on a GPU (not run yet).

# %% tags=["method"]
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit, train_test_split
from sklearn.svm import LinearSVC
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.datasets import STL10
from torchvision.models import resnet18
from torchvision.transforms import v2

FAST = True
SIZE, DIM, CLASSES, BATCH, EPOCHS = (24, 128, 64, 128, 4) if FAST else (96, 512, 16384, 256, 100)  # SIZE: px
CROP, FLIP = (0.5, 0.0) if FAST else (0.2, 0.5)  # the mirror image of a digit, or a fifth of it, is no longer the digit
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)

# %% [markdown]
# ## Data
# Lists of (image, label). Pretraining uses no labels; the probe of the digits has 10 for each class.

# %%
if FAST:
    images, labels = load_digits(return_X_y=True)  # 8x8 px, values 0 to 16
    images = [Image.fromarray(np.uint8(x.reshape(8, 8) * 15)).convert("RGB").resize((SIZE, SIZE)) for x in images]
    unlabelled, test = train_test_split(list(zip(images, labels)), train_size=1280, stratify=labels, random_state=0)
    train, _ = train_test_split(unlabelled, train_size=100, stratify=[y for _, y in unlabelled], random_state=0)
else:
    unlabelled, train, test = (STL10("data", split, download=True) for split in ("unlabeled", "train", "test"))

# %% [markdown]
# ## Augmentation
# The two views of an image are two independent draws.

# %% tags=["method"]
normalize = v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
to_input = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), normalize])
jitter = v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8)
crop = v2.RandomResizedCrop(SIZE, scale=(CROP, 1))
augment = v2.Compose([crop, v2.RandomHorizontalFlip(FLIP), jitter, v2.RandomGrayscale(0.1), to_input])
workers = {} if FAST else {"num_workers": 8, "multiprocessing_context": "fork", "pin_memory": True}


def two_views(batch):
    return [torch.stack([augment(image) for image, _ in batch]) for _ in range(2)]  # 2 x (B, 3, SIZE, SIZE)


def clean(batch):
    return torch.stack([to_input(image) for image, _ in batch]), torch.tensor([label for _, label in batch])


# %% [markdown]
# ## Encoder and heads
# The student is linear in the representation $z$; the teacher need not be.

# %% tags=["method"]
encoder = resnet18()
encoder.fc = nn.Identity()
if FAST:
    encoder.layer3 = encoder.layer4 = nn.Identity()  # they would see 3x3 px; DIM is 128 without them
wide = [nn.Linear(DIM, 2048), nn.BatchNorm1d(2048), nn.ReLU(), nn.Linear(2048, 512), nn.BatchNorm1d(512), nn.ReLU()]
teacher = nn.Sequential(*wide, nn.Linear(512, CLASSES))
student = nn.Linear(DIM, CLASSES)
model = nn.ModuleList([encoder, teacher, student]).to(DEVICE)

# %% [markdown]
# ## Objective
# Let $t^v_i$ and $s^v_i$ be the class probabilities that teacher and student give to view $v$ of image $i$,
# $\mathrm{CE}(p, q) = -\frac1B \sum_i \sum_c p_{ic} \log q_{ic}$, and $H$ the entropy. The loss is
#
# $$\tfrac12[\mathrm{CE}(t^1, s^2) + \mathrm{CE}(t^2, s^1)]
# - \lambda \tfrac12[H(\tfrac1B\sum_i t^1_i) + H(\tfrac1B\sum_i t^2_i)]
# + \beta \tfrac12[\mathrm{CE}(t^1, t^2) + \mathrm{CE}(t^2, t^1)]$$
#
# for distillation, for maximality (all classes are used), and for invariance and determinism (one class for both
# views). $\lambda = 2.3$, $\beta = 0.8$; temperatures are 1/2 for the teacher, 1 for the student. Nothing is detached.


# %% tags=["method"]
def cross_entropy(p, log_q):
    return -(p * log_q).sum(1).mean()


def dissl_loss(teacher1, teacher2, student1, student2, lam=2.3, beta=0.8):  # logits (B, C) -> ()
    log_t1, log_t2 = (F.log_softmax(logits.float() / 0.5, 1) for logits in (teacher1, teacher2))
    log_s1, log_s2 = (F.log_softmax(logits.float(), 1) for logits in (student1, student2))
    t1, t2 = log_t1.exp(), log_t2.exp()
    distillation = (cross_entropy(t1, log_s2) + cross_entropy(t2, log_s1)) / 2
    m1, m2 = (t.mean(0, keepdim=True).clamp_min(1e-7) for t in (t1, t2))  # (1, C), how often each class is used
    maximality = (cross_entropy(m1, m1.log()) + cross_entropy(m2, m2.log())) / 2  # H(p) is CE(p, p)
    invariance = (cross_entropy(t1, log_t2) + cross_entropy(t2, log_t1)) / 2
    return distillation - lam * maximality + beta * invariance


# %% [markdown]
# ## Linear probe
# A linear SVM on frozen features. Its $C$ is chosen on a fifth of *train*, and the accuracy printed is on *test*.
# The authors' minimal notebooks print, by an oversight, the accuracy on the images that the SVM was fitted to (95.4 %).


# %%
@torch.no_grad()
def features(data):
    encoder.eval()  # running statistics in BatchNorm: a representation does not depend on the rest of its batch
    batches = [(encoder(x.to(DEVICE)).cpu(), y) for x, y in DataLoader(data, BATCH, collate_fn=clean, **workers)]
    return [torch.cat(part).numpy() for part in zip(*batches)]  # (n, DIM), (n,)


def test_accuracy():
    held_out = StratifiedShuffleSplit(1, test_size=0.2, random_state=0)
    svm = GridSearchCV(LinearSVC(random_state=0), {"C": np.logspace(-3, 0, 7)}, cv=held_out)
    return svm.fit(*features(train)).score(*features(test))


print(f"test accuracy, new weights: {test_accuracy():.1%}")

# %% [markdown]
# ## Training

# %%
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, weight_decay=1e-6)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
scaler = torch.amp.GradScaler(DEVICE, enabled=DEVICE == "cuda")
for epoch in range(EPOCHS):
    model.train()
    for views in DataLoader(unlabelled, BATCH, shuffle=True, collate_fn=two_views, **workers):
        with torch.autocast(DEVICE, torch.float16, enabled=DEVICE == "cuda"):
            z1, z2 = (encoder(view.to(DEVICE)) for view in views)  # (B, DIM), each view with its own batch statistics
            loss = dissl_loss(teacher(z1), teacher(z2), student(z1), student(z2))
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    schedule.step()
    print(f"epoch {epoch}: loss of the last batch {loss.item():.3f}")
print(f"test accuracy, DISSL: {test_accuracy():.1%}")
