# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 4. Take it away
#
# What a run is good for in the end: a small network that segments images without any tags. This notebook uses the one
# of the run of [the first notebook](01_first_masks.ipynb) in Python.

# %% tags=["parameters"]
run = "runs/notebooks"
out = "runs/notebooks_masks"  # where masks are written

# %%
from qaclims_ray import load

network = load(run)
network.class_names

# %% [markdown]
# ## One image
#
# A path, a PIL image, an array or a tensor will do. The label map has the image's own size, whatever size the network
# works at.

# %%
import matplotlib.pyplot as plt
import numpy as np

from qaclims_ray.data.manifest import read_manifest
from qaclims_ray.stages.layout import RunLayout

manifest = read_manifest(RunLayout(run).manifest)
records = [record for record in manifest.records if "val" in record.splits and record.labels]
found = network.predict(records[0].image_uri)
print(found.labels.shape, found.labels.dtype, found.scores.shape)
print({name: f"{share:.1%}" for name, share in found.found.items()})

# %%
best = int(np.argmax(found.scores[1:].sum(axis=(1, 2)))) + 1  # the class with the largest share of the probability
figure, axes = plt.subplots(1, 3, figsize=(10, 3.6))
axes[0].imshow(found.image)
axes[1].imshow(found.overlay())
scores = axes[2].imshow(found.scores[best], cmap="viridis", vmin=0)
for axis, title in zip(
    axes, ("image", "what the network says", f"probability of {found.label_names[best]}"), strict=True
):
    axis.set_title(title)
    axis.axis("off")
figure.colorbar(scores, ax=axes[2], shrink=0.7)
plt.show()

# %% [markdown]
# ## When you know what an image can show
#
# Then say so: other classes are left out, and what was theirs goes to those that are left. `crf=True` follows the
# image's colours.

# %%
names = [network.class_names[class_id] for class_id in records[0].labels]
told = network.predict(records[0].image_uri, classes=names, crf=True)
figure, axes = plt.subplots(1, 2, figsize=(7, 3.6))
for axis, one, title in zip(
    axes, (found, told), ("on its own", f"told: {', '.join(names)}; with the CRF"), strict=True
):
    axis.imshow(one.overlay())
    axis.set_title(title)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Many images, and files
#
# A list gives a list. `mask()` is a picture whose pixel values are the labels, in VOC's colours; any viewer shows it.

# %%
from pathlib import Path

Path(out).mkdir(parents=True, exist_ok=True)
some = records[:6]
for record, one in zip(some, network.predict([record.image_uri for record in some]), strict=True):
    one.mask().save(Path(out, f"{record.image_id}.png"))
    print(record.image_id, {name: round(share, 3) for name, share in one.found.items()})

# %% [markdown]
# For folders of images on all cores or GPUs: `qaclims predict RUN --images DIR --out DIR`.

# %% [markdown]
# ## Away from Python, and from here
#
# `qaclims export-network` writes one ONNX file with everything inside: size, normalisation, names, colours. The script
# `predict.py` beside it needs onnxruntime and Pillow alone. `--to hub` writes a folder for a model hub.

# %%
import subprocess
import sys

away = f"{out}/network"
command = [sys.executable, "-m", "qaclims_ray", "export-network", run, "--to", "onnx", "--out", away]
print(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

# %%
import json

import onnxruntime

session = onnxruntime.InferenceSession(f"{away}/network.onnx", providers=["CPUExecutionProvider"])
labels, _ = session.run(None, {"image": found.image[None]})
same = (labels[0] == found.labels).mean()
print("labels inside the file:", json.loads(session.get_modelmeta().custom_metadata_map["labels"]))
print(f"{same:.2%} of the pixels have the label that PyTorch gave them")

# %% [markdown]
# The masks themselves go to a labelling tool with `qaclims export-masks RUN --to cvat`, and come back corrected:
# [from masks to a product](../docs/from_masks_to_product.md).
