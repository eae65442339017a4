"""Two gloo workers train CLIMS, SemPLeS and prompts as one does, with uneven shares of images and of pairs."""

import dataclasses
import multiprocessing
import socket
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from safetensors.torch import load_file, save_file

from qaclims_ray.methods.clims.task import class_weights, clims_regions, clims_step, train_clims
from qaclims_ray.methods.semples.matching import (
    _Joint,
    joint_step,
    matching_step,
    region_options,
    train_jointly,
    train_matching,
)
from qaclims_ray.methods.semples.prompts import start_of_prompts, train_prompts
from qaclims_ray.models.clip.prompts import LearnedPrompts, load_prompts
from qaclims_ray.models.generators.cam_net import build_cam_net, load_cam_net, save_cam_net
from qaclims_ray.training.context import all_reduce_sum, gather_rows
from qaclims_ray.training.loop import _set_training_mode, wrap_network
from tests.distributed.test_world_size import GlooContext, _close, _group
from tests.ritc_fakes import AUGMENT, CAM_NET, CLASSES, TinyClip, regions_of, with_setup, write_pictures
from tests.semples_fakes import (
    OPTIM,
    bright_images,
    clims_config,
    near_bank,
    prompt_config,
    semples_config,
    semples_regions,
    shipped_clip,
    texts_near,
)

# Of two workers, the second has images 1, 3, 5: one pair; with NOTHING it has none.
LABELS = torch.tensor([[1, 1, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]]).float()
ONE_SIDED = LABELS * torch.tensor([1, 0, 1, 0, 1])[:, None]
IDS = ["1", "2", "3", "3", "5"]
KINDS = {"labels": LABELS, "one_sided": ONE_SIDED, "nothing": torch.zeros_like(LABELS)}
SIGMOID = semples_config(mask="sigmoid", area_weight=0.3, refine_weight=0.5)
CLIMS = {
    "clims": clims_config(),
    # The camera-ready reductions, and a sum that was averaged over two published workers.
    "clims_first": clims_config(
        suppression_threshold=None, text_reduction="mean", class_weights=(("red", 3.0),), published_ranks=2
    ),
}
CASES = (*CLIMS, "match", "refine", "head", "joint")
pytestmark = pytest.mark.timeout(900)  # processes of a busy machine start slowly


def _step(case: str, network, batch: dict, ids: list[str]):
    """Return network to wrap, and a step on it."""
    if case in CLIMS:
        clims = CLIMS[case]
        regions = regions_of(TinyClip(), clims_regions(clims))
        options = {"bank": near_bank(TinyClip(), 8), "regions": regions, "clims": clims}
        options |= {"images_per_step": 5, "class_weight": class_weights(CLASSES, clims)}
        return network, lambda wrapped: clims_step(wrapped, batch, ids, **options)
    if case == "joint":
        clip = shipped_clip()
        vectors, template = start_of_prompts(clip, SIGMOID.prompt, 3, seed=0)
        options = {"clip": clip, "regions": semples_regions(clip, SIGMOID)}
        options |= {"class_texts": texts_near(clip, 3, seed=3), "semples": SIGMOID}
        joint = _Joint(network, LearnedPrompts(vectors))
        return joint, lambda wrapped: joint_step(wrapped, batch, template=template, **options)
    clip = TinyClip()
    if case == "head":
        for parameter in network.backbone_parameters():
            parameter.requires_grad_(False)
    semples = semples_config() if case == "match" else SIGMOID
    options = {
        "regions": semples_regions(clip, semples),
        "class_texts": texts_near(clip, 3, seed=3),
        "prompts": texts_near(clip, 3, seed=4) if case == "refine" else None,
        "semples": semples,
    }
    return network, lambda wrapped: matching_step(wrapped, batch, **options)


def _gradients(context: GlooContext, folder: str, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return loss, figures and gradients of one step of each case."""
    mine = slice(context.rank, None, context.world_size)
    batch = {"image": bright_images(5, 32, seed=1)[mine], "labels": labels[mine]}
    found = {}
    for case in CASES:
        network, step = _step(case, load_cam_net(folder), batch, IDS[mine])
        wrapped = wrap_network(network, "fp32", context)
        _set_training_mode(network, freeze_batch_norm=True)
        result = step(wrapped)
        # What the loop does.
        (result.loss * context.world_size).backward()
        # As the meter adds figures up: by position.
        figures = torch.stack([result.loss.detach(), *result.means.values(), torch.tensor(result.counts["pairs"])])
        for name, value in zip(["loss", *result.means, "pairs"], all_reduce_sum(figures), strict=True):
            found[f"{case}:{name}"] = value
        for name, parameter in network.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, f"{case} {name}"
            if parameter.grad is not None:
                found[f"{case}/{name}"] = parameter.grad.clone()
    return found


def _trainings(context: GlooContext, pictures: Path, init_dir: str) -> dict[str, dict[str, float]]:
    """Run each whole training; checkpoints go to folders beside the context's."""
    shared = {
        "manifest": write_pictures(pictures, num_images=11),  # six images for one worker, five for the other
        "cam_net": CAM_NET,
        "augment": AUGMENT,
        "precision": "fp32",
        "loader_workers": 0,
        "seed": 0,
        "init_dir": init_dir,
    }
    optim = dataclasses.replace(OPTIM, lr=1e-3, batch_size=5)  # uneven shares of each step
    tiny, clip = TinyClip(), shipped_clip()

    def at(name: str) -> dict:
        return {**shared, "context": GlooContext(str(pictures / name), context.rank, context.world_size)}

    texts, prompts = texts_near(tiny, 3, seed=3), texts_near(tiny, 3, seed=4)
    match = {"clip": tiny, "class_texts": texts, "semples": SIGMOID, "optim": optim}
    real = {"clip": clip, "class_texts": texts_near(clip, 3, seed=3)}
    learn = {
        "semples": semples_config(prompt=prompt_config(batch_size=7)),
        "options": region_options(SIGMOID, epsilon=0.1),
    }
    return {
        "clims": train_clims(
            **with_setup(clims=clims_config(optim=optim), bank=near_bank(tiny, 12), clip=tiny, **at("clims"))
        ),
        "match": train_matching(**with_setup(prompts=None, **match, **at("match"))),
        "refine": train_matching(**with_setup(prompts=prompts, **match, **at("refine"))),
        "prompts": train_prompts(**with_setup(**learn, **real, **at("prompts"))),
        "joint": train_jointly(**with_setup(semples=SIGMOID, optim=optim, **real, **at("joint"))),
    }


def _work(rank: int, world_size: int, folder: str) -> None:
    own = Path(f"{folder}/{world_size}-{rank}")
    context = GlooContext(str(own), rank, world_size)
    for kind, labels in KINDS.items():
        save_file(_gradients(context, f"{folder}/init", labels), own / f"{kind}.safetensors")
    metrics = _trainings(context, own, f"{folder}/init")
    numbers = {
        f"{case}/{name}": torch.tensor(value, dtype=torch.float64)
        for case, figures in metrics.items()
        for name, value in figures.items()
    }
    save_file(numbers, own / "metrics.safetensors")
    everything = torch.arange(10.0).reshape(5, 2)
    # The first worker has no row and does not know how wide they are.
    rows = everything if rank == world_size - 1 else torch.zeros(0, 0)
    gathered = {"late": gather_rows(rows, context), "none": gather_rows(torch.zeros(0, 0), context)}
    gathered["uneven"] = gather_rows(everything[:3] if rank == 0 else everything[3:], context)
    save_file(gathered, own / "gathered.safetensors")


def _worker(rank: int, port: int, folder: str) -> None:
    with _group(rank, 2, port):
        _work(rank, 2, folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Results of one and of two workers."""
    folder = tmp_path_factory.mktemp("gloo")
    torch.manual_seed(0)
    network = build_cam_net(CAM_NET, 3, classifier_bias=True)
    network.classifier.weight.data *= 30  # maps with structure
    save_cam_net(network, str(folder / "init"))
    for name in ("1-0", "2-0", "2-1"):
        (folder / name).mkdir()
    _work(0, 1, str(folder))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Imports take longer than the work: one server does them, and the workers are its forks.
    multiprocessing.set_forkserver_preload(["qaclims_ray.methods.semples.matching", "qaclims_ray.methods.clims.task"])
    torch.multiprocessing.start_processes(_worker, (port, str(folder)), nprocs=2, start_method="forkserver")
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_loss_figures_and_gradient_equal_those_of_one_worker(folder, kind) -> None:
    expected = load_file(folder / f"1-0/{kind}.safetensors")
    for rank in range(2):
        _close(load_file(folder / f"2-{rank}/{kind}.safetensors"), expected)


def test_the_reference_is_not_trivial(folder) -> None:
    expected = load_file(folder / "1-0/labels.safetensors")
    for case in CASES:
        head = f"{case}/generator.classifier.weight" if case == "joint" else f"{case}/classifier.weight"
        assert expected[f"{case}:pairs"] == 7 and expected[f"{case}:loss"] > 0.1, case
        assert expected[head].abs().max() > 1e-3, case
    assert expected["joint/prompts.vectors"].abs().max() > 1e-3
    assert {name for name in expected if name.startswith("head/")} == {"head/classifier.weight", "head/classifier.bias"}
    nothing = load_file(folder / "1-0/nothing.safetensors")
    assert nothing["match:loss"] == nothing["joint:loss"] == 0 and nothing["match:pairs"] == 0
    assert nothing["match/classifier.weight"].abs().max() == 0


@pytest.mark.parametrize("case", ["clims", "match", "refine", "prompts", "joint"])
def test_whole_trainings_agree(folder, case) -> None:
    expected, *found = (load_file(folder / name / "metrics.safetensors") for name in ("1-0", "2-0", "2-1"))
    names = [name for name in expected if name.startswith(f"{case}/") and not name.endswith("images_per_s")]
    assert f"{case}/loss" in names
    for metrics in found:
        for name in names:
            torch.testing.assert_close(metrics[name], expected[name], rtol=1e-3, atol=1e-5, msg=name)
    one, two = (folder / name / case / "latest" for name in ("1-0", "2-0"))
    if case != "prompts":
        start = load_cam_net(str(folder / "init")).state_dict()
        trained = [load_cam_net(str(latest)).state_dict() for latest in (one, two)]
        assert not torch.equal(trained[0]["classifier.weight"], start["classifier.weight"])
        for name, value in trained[0].items():
            torch.testing.assert_close(trained[1][name], value, rtol=1e-3, atol=3e-4)
    if case in ("prompts", "joint"):
        inside = {"prompts": "", "joint": "prompts"}[case]
        vectors = [load_prompts(str(latest / inside)).vectors for latest in (one, two)]
        start, _ = start_of_prompts(shipped_clip(), SIGMOID.prompt, 3, seed=0)
        assert (vectors[0] - start).abs().max() > 0.02
        torch.testing.assert_close(vectors[1], vectors[0], rtol=1e-3, atol=1e-3)


def test_rows_are_gathered_in_order_of_rank_whoever_has_none(folder) -> None:
    everything = torch.arange(10.0).reshape(5, 2)
    for rank in range(2):
        gathered = load_file(folder / f"2-{rank}/gathered.safetensors")
        assert torch.equal(gathered["late"], everything) and torch.equal(gathered["uneven"], everything)
        assert gathered["none"].shape == (0, 0)
