"""A run's network as files that need neither the run nor this package: ``network.onnx``, and a folder for a hub."""

import tempfile
from dataclasses import dataclass

from rich.console import Console

from qaclims_ray.data import artifacts, storage, whole_files
from qaclims_ray.data.artifacts import package_version
from qaclims_ray.data.classes import has_background
from qaclims_ray.data.folder_owner import is_owner_mark
from qaclims_ray.data.manifest import Manifest, read_manifest
from qaclims_ray.deployment.exported_graph import CamGraph, CamRules, FinalGraph
from qaclims_ray.deployment.network_facts import NetworkFacts
from qaclims_ray.deployment.onnx_file import ONNX_NAME, SCRIPT_NAME, require_onnx, write_onnx
from qaclims_ray.errors import ConfigError
from qaclims_ray.methods.table import method_of
from qaclims_ray.models.generators.mask_generator import load_mask_generator
from qaclims_ray.refine.shares import HALF
from qaclims_ray.report.console_text import print_line
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.segmentation.config import SegmentationConfig
from qaclims_ray.segmentation.networks.network import FinalNetwork
from qaclims_ray.stages.evaluate import read_evaluation
from qaclims_ray.stages.layout import RunLayout, network_uri_of
from qaclims_ray.stages.predict_final import read_final_network
from qaclims_ray.stages.requests import ExportNetworkArguments
from qaclims_ray.stages.run_folder import absolute_out, load_config
from qaclims_ray.stages.segment import read_segmentation
from qaclims_ray.stages.threshold import at_chosen_threshold
from qaclims_ray.systems.licences import weights_used
from qaclims_ray.systems.needs import rounds_of
from qaclims_ray.systems.table import system_config, system_of, with_systems

_WHOLE_PX = 32
"""A fixed size is a multiple of this, so that no network has to pad."""
_BY_SAM = " along the edges of Segment Anything, which was trained on masks"
"""Said of what a system with the mask step sam learned from."""


def run_export_network(asked: ExportNetworkArguments, console: Console) -> None:
    """Write a trained network of a run into a folder.

    Raises:
        ConfigError: for options that do not go together.
        ArtifactError: when the network is not trained.
        ModelError: when packages for ONNX are absent, or it cannot hold the network.
    """
    if "onnx" in asked.forms:
        require_onnx()
    out, run = absolute_out(asked.out), storage.absolute(asked.run)
    config, layout = load_config(run, can_begin=False), RunLayout(run)
    system = asked.system or config.systems[-1]
    system_of(config, system)
    one = _Run(config, system_config(config, system), layout, system, read_manifest(layout.manifest))
    _require_free(out)
    storage.check_writable(out)
    with tempfile.TemporaryDirectory() as folder:
        if _takes_final(asked, one):
            facts = _export_final(asked, one, folder)
        else:
            facts = _export_cam(asked, one, folder)
        storage.upload_tree(folder, out)
    for line in _told(facts, asked.forms, out):
        print_line(console, line)


def _require_free(out: str) -> None:
    """Refuse a folder that holds anything but an earlier export: settings of runs and README files are called alike.

    Raises:
        ConfigError: naming the folder.
    """
    # Not at the top: ONNX does without it, and what it imports.
    from qaclims_ray.deployment.hub_folder import is_hub_folder

    files = storage.list_files(out) if storage.exists(out) else []
    found = {uri.rstrip("/").rsplit("/", 1)[-1] for uri in files if not is_owner_mark(uri)}  # the command's own mark
    folders = storage.list_folders(out) if storage.exists(out) else []
    if found and not folders and (ONNX_NAME in found or is_hub_folder(out)):
        return
    if found or folders:
        raise ConfigError(f"--out {out} holds other things, which an export could replace: give a folder of its own")


@dataclass(frozen=True)
class _Run:
    whole: RunConfig
    config: RunConfig
    """With the system's own settings."""
    layout: RunLayout
    system: str
    manifest: Manifest


def _takes_final(asked: ExportNetworkArguments, one: _Run) -> bool:
    final = one.layout.segmentation(one.system)
    if asked.network == "auto":
        return artifacts.read_meta(final) is not None and asked.threshold is None
    if asked.network == "final" and asked.threshold is not None:
        raise ConfigError("--threshold is a background score of CAMs; leave it out, or set --network cam")
    return asked.network == "final"


def _export_final(asked: ExportNetworkArguments, one: _Run, folder: str) -> NetworkFacts:
    if asked.size is not None and "onnx" not in asked.forms:
        raise ConfigError("--size is the size inside network.onnx; leave it out with --to hub, or add --to onnx")
    if asked.label_threshold != ExportNetworkArguments.label_threshold:
        raise ConfigError("--label-threshold is for CAMs: a final network tells the classes itself; leave it out")
    uri = one.layout.segmentation(one.system)
    artifacts.require_artifact(uri, "segmentation", verb="segment")
    network = read_final_network(uri)
    facts = final_facts(one.whole, one.layout, one.system, one.manifest, asked.size)
    test = one.config.segmentation.test
    if "hub" in asked.forms:
        # With it comes the reader of such folders, which ONNX does without.
        from qaclims_ray.deployment.hub_folder import write_hub_folder

        write_hub_folder(network, test, facts, folder)
    if "onnx" in asked.forms:
        write_onnx(final_graph(network, facts), facts, folder)
    return facts


def final_graph(network: FinalNetwork, facts: NetworkFacts) -> FinalGraph:
    """Return a final network from pixels to labels, as its facts say."""
    return FinalGraph(
        network,
        facts.normalisation,
        mirrored=facts.mirrored,
        has_background=facts.classes.has_background,
        size=facts.size,
    ).eval()


def _export_cam(asked: ExportNetworkArguments, one: _Run, folder: str) -> NetworkFacts:
    if "hub" in asked.to:
        raise ConfigError("--to hub is for final networks: a CAM network needs its classifier; leave it out here")
    if asked.size is not None:
        raise ConfigError("--size is for final networks: CAMs are computed at an image's own size; leave it out")
    if asked.threshold is not None and not has_background(one.config.data.dataset):
        raise ConfigError(
            f"--threshold parts classes from a background, but {one.config.data.dataset} has none; leave it out"
        )
    method = method_of(system_of(one.whole, one.system).method)
    if not method.has_network:
        raise ConfigError(f"system {one.system} has no CAM network to export; name another with --system")
    uri = network_uri_of(one.layout, one.system, method)
    artifacts.require_artifact(one.layout.classifier, "classifier", verb="train")
    artifacts.require_artifact(uri, method.kind, verb="train")
    require_onnx()
    networks = []
    for place in dict.fromkeys((uri, one.layout.classifier)):
        with whole_files.whole_copy(place) as local:
            networks.append(load_mask_generator(local))
    facts = _cam_facts(asked, one)
    cams, net = one.config.cams, one.config.cam_net
    assert facts.label_threshold is not None
    rules = CamRules(
        activation=cams.activation,
        normalisation=cams.normalisation,
        mirrored=cams.flip,
        stride=net.output_stride,
        threshold=facts.threshold,
        label_threshold=facts.label_threshold,
        has_background=facts.classes.has_background,
    )
    write_onnx(CamGraph(networks[0], networks[-1], facts.normalisation, rules).eval(), facts, folder)
    return facts


def final_facts(
    whole: RunConfig, layout: RunLayout, system: str, manifest: Manifest, size: tuple[int, int] | None = None
) -> NetworkFacts:
    """Return what goes with a system's final network.

    Args:
        whole: the run's settings.
        layout: where its artefacts are.
        system: whose network.
        manifest: the run's.
        size: height and width that an exported graph gives the network; None: each image's own, where it takes any.
    """
    config = system_config(whole, system)
    segmentation = config.segmentation
    net, fixed = segmentation.net, size or _fixed_size(segmentation)
    weights, licence = _weights(whole, system)
    return NetworkFacts(
        name=_name(layout, system),
        kind="final",
        architecture=f"{net.architecture} over {net.backbone}",
        classes=manifest.classes,
        normalisation=(net.image_mean, net.image_std),
        threshold=HALF,
        mirrored=segmentation.test.flip,
        size=fixed,
        example_size=fixed or _example_size(manifest),
        differs=_final_differs(segmentation, fixed),
        with_tags_alone=has_tags_alone(whole, system),
        data=_data_lines(config, manifest, taught_by(whole, system)),
        metrics=_final_metrics(config, layout, system),
        weights=weights,
        licence=licence,
        version=package_version(),
    )


def _cam_facts(asked: ExportNetworkArguments, one: _Run) -> NetworkFacts:
    config, net = one.config, one.config.cam_net
    if asked.threshold is not None:
        config = with_overrides(config, {"evaluation.fixed_threshold": None, "masks.seed_threshold": asked.threshold})
    chosen = at_chosen_threshold(config, one.layout, one.system).fixed_threshold
    scales = tuple(config.cams.scales)
    several = f"the run adds up maps at the scales {_listed(scales)}, the file has 1 alone"
    weights, licence = _weights(one.whole, one.system, goal="seed")
    metrics = {}
    if artifacts.readable_meta(uri := one.layout.evaluation(one.system)) is not None:
        metrics = {f"seed mIoU, {config.data.eval_split}": read_evaluation(uri).seed.miou_fixed}
    return NetworkFacts(
        name=_name(one.layout, one.system),
        kind="cam",
        architecture=f"class activation maps of {net.generator} over {net.backbone}",
        classes=one.manifest.classes,
        normalisation=(net.image_mean, net.image_std),
        threshold=one.manifest.classes.border(chosen),
        label_threshold=asked.label_threshold,
        mirrored=config.cams.flip,
        example_size=_example_size(one.manifest),
        differs=() if scales == (1.0,) else (several,),
        data=_data_lines(config, one.manifest, "image-level tags"),
        metrics=metrics,
        weights=weights,
        licence=licence,
        version=package_version(),
    )


def _fixed_size(segmentation: SegmentationConfig) -> tuple[int, int] | None:
    """Return the size that a network needs whose graph holds for one size only: that of its training crops."""
    if segmentation.net.architecture != "mask2former":
        return None
    side = -(-segmentation.crop.crop_px // _WHOLE_PX) * _WHOLE_PX
    return side, side


def _final_differs(segmentation: SegmentationConfig, fixed: tuple[int, int] | None) -> tuple[str, ...]:
    test, found = segmentation.test, []
    if tuple(test.scales) != (1.0,):
        found.append(f"the run averages over the scales {_listed(test.scales)}, the file computes at 1 alone")
    if test.window_px:
        found.append(f"the run looks through windows of {test.window_px} pixels, the file at the whole image")
    if fixed is not None:
        found.append(f"the file brings every image to {fixed[0]}x{fixed[1]} pixels, and the scores back to its size")
    return (*found, "the CRF of `qaclims predict --crf` is not in the file")


def _listed(scales: tuple[float, ...]) -> str:
    return ", ".join(f"{scale:g}" for scale in scales)


def _name(layout: RunLayout, system: str) -> str:
    return f"{layout.out.rstrip('/').rsplit('/', 1)[-1]}, {system}"


def _example_size(manifest: Manifest) -> tuple[int, int]:
    """Return the middle image's size, within bounds at which an export is quick."""
    middle = manifest.records[len(manifest.records) // 2]
    height, width = (min(max(side, 33), 257) for side in (middle.height, middle.width))
    # Sides that differ: the exporter would else take them for one.
    return height, width if width != height else width + 1


def has_tags_alone(whole: RunConfig, system: str) -> bool:
    """Whether no masks stand behind what a system's final network learned from, as far as is known.

    A CLIP that was adapted on mask proposals (OVSeg) counts where the network itself looks through it; as a teacher it
    does not, as in the papers.
    """
    method = method_of(system_of(whole, system).method)
    by_sam = method.has_cams and "sam" in system_config(whole, system).masks.steps
    by_tags = method.has_cams or method.own_network is not None
    has_adapted = method.own_network is not None and method.uses_clip and whole.clip.mask_adapted
    return by_tags and not method.trained_on_masks and not by_sam and not has_adapted


def taught_by(whole: RunConfig, system: str) -> str:
    """Return the labels that a system's final network learned from."""
    method, own = method_of(system_of(whole, system).method), system_config(whole, system)
    rounds = rounds_of(own, system)
    again = f", which its networks drew again {rounds - 1} time{'s' * (rounds > 2)}" if rounds > 1 else ""
    if method.trained_on_masks:
        return f"image-level tags, turned into masks by {method.trained_on_masks}, which was trained on masks{again}"
    if method.has_cams:
        by_sam = "sam" in own.masks.steps
        return f"image-level tags, turned into masks by this run{_BY_SAM if by_sam else ''}{again}"
    if method.own_network is not None:
        return "image-level tags, turned into masks by the network itself while it learned"
    return "masks made elsewhere" if method.brings_masks else "true masks"


def _data_lines(config: RunConfig, manifest: Manifest, labels: str) -> dict[str, str]:
    counts: dict[str, int] = {}
    for record in manifest.records:
        for split in record.splits:
            counts[split] = counts.get(split, 0) + 1
    trained = [record for record in manifest.records if config.data.train_split in record.splits]
    shown = {name: sum(index in record.labels for record in trained) for index, name in enumerate(manifest.class_names)}
    return {
        "data set": config.data.dataset,
        "images": ", ".join(f"{split} {count}" for split, count in counts.items()),
        f"images of each class in {config.data.train_split}": ", ".join(f"{n} {c}" for n, c in shown.items()),
        "learned from": f"{labels} ({config.data.train_split})",
    }


def _final_metrics(config: RunConfig, layout: RunLayout, system: str) -> dict[str, float]:
    """Return what the network scores, where its predictions are of the network that is there now."""
    network, scored = (
        artifacts.readable_meta(uri) for uri in (layout.segmentation(system), layout.predictions(system))
    )
    if network is None or scored is None or scored.inputs.get("network") != network.fingerprint:
        return {}
    found = read_segmentation(layout.predictions(system))
    on = config.data.test_split
    figures = {}
    for words, scores in (("", found.plain), (" with CRF", found.crf)):
        if scores is not None:
            figures[f"mIoU{words}, {on}"] = scores.miou_fixed
            figures[f"mean Dice{words}, {on}"] = scores.mdice_fixed
    return figures


def _weights(whole: RunConfig, system: str, **overrides: str) -> tuple[tuple[str, ...], str]:
    """Return lines about the weights that a system learned from, and the licence that they have together."""
    used = weights_used(with_overrides(with_systems(whole, [system]), {"supervised_bound": False, **overrides}))
    licences = {one.licence for one in used}
    licence = licences.pop().lower() if len(licences) == 1 else "other"
    lines = tuple(" ".join(_without_folders(word) for word in one.line.split(" ")) for one in used)
    return lines, licence if " " not in licence else "other"


def _without_folders(word: str) -> str:
    """Return the file's name alone of a path: what is handed on says nothing of this machine."""
    return word.rstrip("/").rsplit("/", 1)[-1] if word.startswith(("/", "~/", "file:/")) else word


def _told(facts: NetworkFacts, forms: tuple[str, ...], out: str) -> list[str]:
    lines = []
    if "onnx" in forms:
        size = "images of any size" if facts.size is None else f"images, at {facts.size[0]}x{facts.size[1]} inside"
        lines.append(f"onnx   {storage.join(out, ONNX_NAME)}: {size}; {SCRIPT_NAME} beside it runs it")
        lines += [f"  {remark}" for remark in facts.differs]
    if "hub" in forms and facts.kind == "final":
        lines.append(f"hub    {out}: weights, config.json, model card; qaclims_ray.load reads it")
    return [*lines, *[f"  {line}" for line in facts.weights]]
