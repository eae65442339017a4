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
# # 2. Compare methods
#
# One run trains several methods on the same images from the same start, so they can be compared. This notebook reads
# the run of [the first one](01_first_masks.ipynb).

# %% tags=["parameters"]
run = "runs/notebooks"

# %% [markdown]
# ## Figures
#
# `report/report.json` has every figure of the report. Mean IoU at three stages: the *seed* is the thresholded map,
# the *pseudo mask* its refinement, the *final network* learned from the pseudo masks. True masks scored them; none of
# them chose anything.

# %%
import json
from pathlib import Path

import pandas as pd

report = json.loads(Path(run, "report", "report.json").read_text())
stages = {"seed": "seed", "mask": "pseudo mask", "segmentation_crf": "final network"}
figures = pd.DataFrame(
    {
        found["label"]: {title: 100 * found[stage]["miou_fixed"] for stage, title in stages.items() if found[stage]}
        for found in report["systems"].values()
    }
).T
figures.round(1)

# %%
import matplotlib.pyplot as plt

axis = figures.plot.bar(rot=0, figsize=(8, 3.5), color=["#9ecae1", "#4292c6", "#084594"])
axis.set_ylabel("mean IoU, %")
axis.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# ## How sure is a difference?
#
# Images are drawn anew, the same ones for both methods, and the difference is taken each time. The interval holds 95
# % of them. Where it holds zero, these images do not tell which is better. It says nothing of other seeds: train
# again for those.

# %%
from qaclims_ray.stages.compare import run_compare
from qaclims_ray.stages.requests import CompareArguments

comparison, page = run_compare(CompareArguments(runs=(f"{run}:baseline", f"{run}:qa_clims"), resamples=500))
differences = pd.DataFrame(
    {
        f"{stage.stage}, {stage.num_images[0]} images of {stage.split}": {
            "baseline": 100 * stage.first,
            "QA-CLIMS": 100 * stage.other,
            "difference": 100 * stage.difference,
            "from": 100 * stage.interval.low if stage.interval else None,
            "to": 100 * stage.interval.high if stage.interval else None,
        }
        for stage in comparison.stages
    }
).T
print(f"The whole comparison, class by class: {page}")
differences.astype(float).round(1)

# %% [markdown]
# ## Look at the same images
#
# A figure does not say what goes wrong. The maps of the first class of some images, by method: bright is where the
# method sees it.

# %%
from qaclims_ray.cams.store import read_cam_shard
from qaclims_ray.data.images import load_image
from qaclims_ray.data.manifest import read_manifest
from qaclims_ray.stages.layout import RunLayout

layout = RunLayout(run)
systems = list(report["systems"])
cams = {
    name: {cam.image_id: cam for file in Path(layout.cams(name)).glob("*.parquet") for cam in read_cam_shard(str(file))}
    for name in systems
}
manifest = read_manifest(layout.manifest)
shown = [record for record in manifest.records if record.labels and record.image_id in cams["baseline"]][:4]

figure, axes = plt.subplots(len(shown), 1 + len(systems), figsize=(2.6 * (1 + len(systems)), 2.7 * len(shown)))
for row, record in zip(axes, shown, strict=True):
    row[0].imshow(load_image(record.image_uri).permute(1, 2, 0))
    row[0].set_ylabel(manifest.class_names[record.labels[0]])
    for axis, name in zip(row[1:], systems, strict=True):
        axis.imshow(cams[name][record.image_id].full[0], cmap="inferno", vmin=0, vmax=1)
    for axis in row:
        axis.set_xticks([])
        axis.set_yticks([])
for axis, title in zip(axes[0], ["image", *(report["systems"][name]["label"] for name in systems)], strict=True):
    axis.set_title(title)
plt.show()

# %% [markdown]
# Next: [what learned prompts say](03_read_prompts.ipynb).
