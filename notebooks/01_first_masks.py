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
# # 1. First masks
#
# From images of which we know only what each one shows, to a mask for every image, to a network that needs no such
# tags. The images are a small world that the package draws itself, so nothing is downloaded and no GPU is needed.
# With your own photographs it is the same: `qaclims start photos`.

# %% tags=["parameters"]
run = "runs/notebooks"  # folder of the run that all notebooks look at
options = "--data.num-images 200 --cluster.num-workers 0"  # fewer images than the demo has

# %% [markdown]
# ## Make the run
#
# One command. It trains a classifier and, from it, two methods that use a frozen CLIP; then a small segmentation
# network on each one's masks. A run that is there already is taken as it is.

# %%
import os
import subprocess
import sys
from pathlib import Path

if not Path(run, "report", "report.html").is_file():
    command = f"-m qaclims_ray run miniature semples --systems baseline qa_clims semples {options} --out {run}"
    print("qaclims", command.removeprefix("-m qaclims_ray "))
    plain = {name: value for name, value in os.environ.items() if name != "FORCE_COLOR"}  # lines, no moving bars
    start = [sys.executable, *command.split()]
    with subprocess.Popen(start, env=plain, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            print(line, end="")
    assert process.returncode == 0, "the run did not end well: see above"

# %% [markdown]
# ## What went in
#
# An image, and the names of what it shows. True masks exist, since the world is drawn; they are used to score alone.

# %%
import matplotlib.pyplot as plt

from qaclims_ray.data.images import load_image
from qaclims_ray.data.manifest import read_manifest
from qaclims_ray.stages.layout import RunLayout

layout = RunLayout(run)
manifest = read_manifest(layout.manifest)
shown = [record for record in manifest.records if "train" in record.splits and record.labels][:4]

_, axes = plt.subplots(1, len(shown), figsize=(3 * len(shown), 3.4))
for axis, record in zip(axes, shown, strict=True):
    axis.imshow(load_image(record.image_uri).permute(1, 2, 0))
    axis.set_title(", ".join(manifest.class_names[class_id] for class_id in record.labels))
    axis.axis("off")
plt.show()

# %% [markdown]
# ## What came out
#
# Of each image its *pseudo mask*, made by QA-CLIMS and refined along the colours of the image, and what the final
# network says of the same image without being told any tag. `load` reads that network.

# %%
from PIL import Image

from qaclims_ray import load

network = load(run, system="qa_clims")

figure, axes = plt.subplots(3, len(shown), figsize=(3 * len(shown), 9.4))
for column, record in zip(axes.T, shown, strict=True):
    found = network.predict(record.image_uri)
    mask = Image.open(f"{layout.masks('qa_clims')}/{record.image_id}.png").convert("RGB")
    for axis, picture in zip(column, (found.image, mask, found.overlay()), strict=True):
        axis.imshow(picture)
        axis.axis("off")
    largest = sorted(found.found.items(), key=lambda item: -item[1])[:2]
    column[2].set_title(", ".join(f"{name} {share:.0%}" for name, share in largest) or "nothing found", fontsize=10)
for axis, name in zip(axes[:, 0], ("image", "pseudo mask", "final network"), strict=True):
    axis.text(-0.08, 0.5, name, transform=axis.transAxes, rotation=90, va="center", ha="right")
plt.show()

# %% [markdown]
# The run wrote a page with tables, curves and more pictures; open it in a browser:

# %%
print(Path(run, "report", "report.html").resolve())

# %% [markdown]
# Next: [which method is better, and how sure that is](02_compare_methods.ipynb).
