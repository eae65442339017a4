"""The tables of docs/weights.md: what is known of every weight, and what each preset needs.

    python benchmarks/weights_page.py                          # prints them
    python benchmarks/weights_page.py --page docs/weights.md   # writes them into that page

Weights are those of ``qaclims_ray/models/weight_table.py``; hours are read off ``docs/cluster/sizing.md``,
GPU memory off ``gpu_memory.json``, which ``python -m tests.launches.memory --json benchmarks/gpu_memory.json`` writes.
"""

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

from qaclims_ray.data.public_sets import PUBLIC_SETS
from qaclims_ray.models.weight_table import KNOWN_WEIGHTS, SHIPPED, KnownWeight, weight_named
from qaclims_ray.presets.small import LOCAL, SMALL_BACKBONES
from qaclims_ray.presets.table import PRESETS, preset
from qaclims_ray.report.wording import file_size
from qaclims_ray.run_config import RunConfig
from qaclims_ray.systems.licences import weights_used
from qaclims_ray.systems.table import system_of

START, END = "<!-- tables -->", "<!-- /tables -->"
SIZING = Path(__file__).resolve().parents[1] / "docs" / "cluster" / "sizing.md"
MEMORY = Path(__file__).with_name("gpu_memory.json")
_PAGES = {
    "miniature": "[miniature.md](results/miniature.md)",
    "miniature_semples": "[miniature_semples.md](results/miniature_semples.md)",
    "miniature_weaktr": "[miniature_weaktr.md](results/miniature_weaktr.md)",
    "voc12_mobilenet": "[voc_sample.md](results/voc_sample.md)",
    "voc12_efficientnet_lite2": "[voc_sample.md](results/voc_sample.md)",
}
"""Presets that ran without a GPU -> the page with their times."""


def weights_table() -> str:
    """Return what is known of every weight, in Markdown."""
    lines = ["| name | what it is | what for | size | licence | who may use it |", "|---|---|---|---|---|---|"]
    for weight in KNOWN_WEIGHTS:
        size = file_size(weight.num_bytes) if weight.is_size_exact else f"about {file_size(weight.num_bytes)}"
        title = weight.title if weight.page in ("", SHIPPED) else f"[{weight.title}]({weight.page})"
        users = weight.users if weight.is_permissive else f"**{weight.users}**; instead: {weight.instead}"
        lines.append(f"| `{weight.name}` | {title} | {weight.purpose} | {size} | {weight.licence} | {users} |")
    return "\n".join(lines)


def sets_table() -> str:
    """Return the public data sets, in Markdown."""
    lines = ["| name | what it is | size | terms | read by |", "|---|---|---|---|---|"]
    for one in PUBLIC_SETS:
        size = f"about {file_size(one.num_bytes)}"
        lines.append(f"| `{one.name}` | [{one.title}]({one.page}) | {size} | {one.terms} | `{one.preset}` |")
    return "\n".join(lines)


def presets_table() -> str:
    """Return what each preset needs, in Markdown."""
    hours = _sized_hours()
    lines = ["| preset | weights | licences | GPU memory | hours |", "|---|---|---|---|---|"]
    for name in PRESETS:
        config = preset(name)
        weights, restricted = _weights_of(config)
        if config.cam_net.weights == LOCAL:
            known = dict.fromkeys(name for small in SMALL_BACKBONES for name in small.weights)
            weights = [f"what lies on this machine of {', '.join(f'`{name}`' for name in known)}; else none"]
        licences = f"**restricted**: {', '.join(restricted)}" if restricted else "permissive"
        memory = _memory_of(config) if config.cluster.use_gpu else "no GPU"
        time = f"{hours[name]}, and what is not measured" if name in hours else _PAGES.get(name, "not measured")
        lines.append(f"| `{name}` | {', '.join(weights) or 'none'} | {licences} | {memory} | {time} |")
    return "\n".join(lines)


def _weights_of(config: RunConfig) -> tuple[list[str], list[str]]:
    """Return the names of a run's weights, and of those that not everyone may use."""
    by_title: dict[str, KnownWeight] = {weight.title: weight for weight in KNOWN_WEIGHTS}
    names = {
        used.title: by_title[used.title].name if used.title in by_title else used.title for used in weights_used(config)
    }
    shown = [f"`{name}`" if weight_named(name) else name for name in names.values()]
    return shown, [f"`{names[used.title]}`" for used in weights_used(config) if not used.is_permissive]


def _memory_of(config: RunConfig) -> str:
    """Return the memory of the largest counted step, and what of the preset is not counted."""
    counted = json.loads(MEMORY.read_text(encoding="utf-8"))
    missing: list[str] = []
    sizes: list[tuple[float, str]] = []
    for component, batch, words in _trainings_of(config):
        gib = counted.get(component, {}).get(str(batch))
        if gib is None:
            missing.append(words)
        else:
            sizes.append((gib, words))
    if not sizes:
        return "not counted"
    gib, words = max(sizes)
    return f"{gib:.1f} GiB, {words}" + (f"; not counted: {', '.join(missing)}" if missing else "")


def _trainings_of(config: RunConfig) -> Iterator[tuple[str, int, str]]:
    """Yield component, batch and name of each training that the preset makes; no component where none is like it."""
    net, final = config.cam_net, config.segmentation
    has_component = (net.backbone, config.augment.crop_px) == ("resnet50", 512)
    methods = {system_of(config, name).method for name in config.systems}
    yield "classifier_step" if has_component else "", config.classifier.optim.batch_size, "classifier"
    if methods & {"ritc", "qa_clims"}:
        step = "ritc_step" if config.ritc.region_mode == "token_mask" else "ritc_step_as_printed"
        fits = has_component and config.clip.model.startswith("ViT-L-14")
        yield step if fits else "", config.ritc.optim.batch_size, "RITC"
    if "clims" in methods:
        fits = has_component and config.clip.model.startswith("ViT-B-32")
        yield "clims_step" if fits else "", config.clims.optim.batch_size, "CLIMS"
    if any("semples" in method or "prompts" in method for method in methods):
        yield "", 0, "SemPLeS"
    if "irn" in config.masks.steps:
        fits = (config.masks.irn.backbone, config.masks.irn.crop_px) == ("resnet50", 512)
        yield "irn_step" if fits else "", config.masks.irn.optim.batch_size, "IRN"
    fits = (final.net.architecture, final.net.backbone, final.crop.crop_px) == ("deeplab_v2", "resnet101", 321)
    yield "deeplab_v2_step" if fits else "", final.optim.batch_size, "the final network"


def _sized_hours() -> dict[str, str]:
    """Return preset -> hours on one GPU, as docs/cluster/sizing.md has them."""
    found = {}
    for section in SIZING.read_text(encoding="utf-8").split("### Preset `")[1:]:
        if total := re.search(r"\*\*together, without what was not measured\*\* \| \| \| \*\*([\d.]+)\*\*", section):
            found[section.partition("`")[0]] = f"{total[1]} on [one H200](cluster/sizing.md)"
    return found


def page_body() -> str:
    """Return all that the page holds between its marks."""
    return "\n\n".join(
        [
            "### Presets",
            presets_table(),
            "### Weights",
            weights_table(),
            "### Data sets",
            sets_table(),
        ]
    )


def main() -> None:
    """Print the tables, or write them into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, help="write the tables into this file")
    arguments = parser.parse_args()
    body = page_body()
    print(body)
    if arguments.page:
        text = arguments.page.read_text(encoding="utf-8")
        page = f"{text.split(START)[0]}{START}\n{body}\n{END}{text.split(END)[1]}"
        arguments.page.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
