"""One text-contrast step: all pairs at once (`methods/qa_clims/task.py`) beside a loop over images and classes.

Run: `python -m benchmarks.ritc_step [--batch 8] [--repeats 5] [--threads 1]` for a small network and CLIP, and with
`--full` for the published sizes (ResNet-50 at 512, mask-adapted ViT-L/14 at 224), random weights. Both ways must give
the same loss and gradient, or the benchmark fails. `--full` also prints the FLOPs of forward and backward.
"""

import argparse
import os
import platform
import resource
import statistics
from collections.abc import Callable

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.clock import in_turn, shown
from qaclims_ray.methods.qa_clims.config import RitcConfig
from qaclims_ray.methods.qa_clims.task import ritc_regions, ritc_step
from qaclims_ray.methods.region_features import Regions
from qaclims_ray.methods.regions import resize_bilinear
from qaclims_ray.models.clip.frozen import FrozenClip
from qaclims_ray.models.generators.cam_net import CamNet, build_cam_net
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.text.bank import PairTexts

NUM_CLASSES, NUM_ANSWERS = 20, 8


class RandomTexts:
    """Texts of every (image, class) with 1 to 8 background answers."""

    def __init__(self, num_images: int, dim: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(1)

        def unit(*shape: int) -> Tensor:
            return F.normalize(torch.randn(num_images, NUM_CLASSES, *shape, generator=generator), dim=-1).to(device)

        self.foreground, self.background = unit(dim), unit(NUM_ANSWERS, dim)
        self.counts = torch.randint(1, NUM_ANSWERS + 1, (num_images, NUM_CLASSES), generator=generator)

    def lookup(self, image_ids: list[str], class_ids: list[int]) -> PairTexts:
        """Return the texts of pairs."""
        images, classes = torch.tensor([int(name) for name in image_ids]), torch.tensor(class_ids)
        counts = self.counts[images, classes]
        return PairTexts(
            foreground=self.foreground[images, classes],
            background=self.background[images, classes],
            is_background=torch.arange(NUM_ANSWERS) < counts[:, None],
            has_background=counts > 0,
        )


def make_clip(*, full: bool, device: torch.device) -> FrozenClip:
    """Return a mask-adapted CLIP with random weights."""
    torch.manual_seed(0)
    if full:
        model = open_clip.create_model("ViT-L-14-quickgelu", pretrained=None)
        tokenize = open_clip.get_tokenizer("ViT-L-14-quickgelu")
    else:
        vision = {"image_size": 112, "layers": 4, "width": 192, "patch_size": 14, "head_width": 64}
        text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}
        model, tokenize = open_clip.CLIP(64, vision, text), open_clip.get_tokenizer("ViT-B-32")
        normalisation = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
        open_clip.model.set_model_preprocess_cfg(model, normalisation)
    patches, width = model.visual.positional_embedding.shape
    tokens = torch.randn(3, patches - 1, width) * 0.02
    return FrozenClip(model, tokenize, mask_embedding=tokens).to(device)


def vectorised(
    network: nn.Module, batch: dict[str, Tensor], clip: FrozenClip, texts: RandomTexts, config: RitcConfig
) -> Tensor:
    """Compute the loss as the service does."""
    ids = [str(index) for index in range(len(batch["image"]))]
    net = CamNetConfig()
    regions = Regions(clip=clip, options=ritc_regions(config), image_mean=net.image_mean, image_std=net.image_std)
    return ritc_step(network, batch, ids, bank=texts, regions=regions, ritc=config, images_per_step=len(ids)).loss


def looped(
    network: nn.Module, batch: dict[str, Tensor], clip: FrozenClip, texts: RandomTexts, config: RitcConfig
) -> Tensor:
    """Compute the same loss image by image, class by class, text by text."""
    maps = network(batch["image"]).float().sigmoid()
    total = config.area_weight * maps.mean()
    for image, labels in enumerate(batch["labels"]):
        for class_id in labels.nonzero().flatten().tolist():
            cam = resize_bilinear(maps[image, class_id][None, None], clip.image_size)
            picture = resize_bilinear(batch["image"][image : image + 1], clip.image_size)
            mask = (cam >= config.omega * cam.detach().max()).float()
            inside = clip.encode_regions(picture * cam, mask)[0]
            outside = clip.encode_regions(picture * (1 - cam), 1 - mask)[0]
            foreground = texts.foreground[image, class_id]
            answers = texts.background[image, class_id, : int(texts.counts[image, class_id])]

            def score(region: Tensor, text: Tensor) -> Tensor:
                return torch.exp((region * text).sum() / config.temperature)

            own = score(inside, foreground)
            frc = -torch.log(own / (own + sum(score(inside, text) for text in answers)))
            pooled = sum(score(outside, text) for text in answers) / len(answers)
            brc = -torch.log(pooled / (score(outside, foreground) + pooled))
            total = total + (config.foreground_weight * frc + config.background_weight * brc) / 2
    return total


def run(step: Callable[..., Tensor], network: CamNet, *inputs: object) -> tuple[float, Tensor]:
    """Run forward and backward; return the loss and the gradient of the classifier."""
    network.zero_grad(set_to_none=True)
    loss = step(network, *inputs)
    loss.backward()
    assert network.classifier.weight.grad is not None
    gradient = network.classifier.weight.grad.clone()
    return loss.item(), gradient  # item: waits for the device


def main() -> None:
    """Parse, run both ways, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--full", action="store_true", help="published sizes; about 8 GiB and minutes on a CPU")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    clip = make_clip(full=args.full, device=device)
    torch.manual_seed(0)
    cam_net = CamNetConfig() if args.full else CamNetConfig(backbone="resnet18")
    side = 512 if args.full else 128
    network = build_cam_net(cam_net, NUM_CLASSES).to(device).eval()
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(args.batch, NUM_CLASSES)
    for image in range(args.batch):  # one and two classes in turn: 1.5 an image, as in VOC
        labels[image, torch.randperm(NUM_CLASSES, generator=generator)[: 1 + image % 2]] = 1
    batch = {"image": torch.randn(args.batch, 3, side, side, generator=generator).to(device), "labels": labels}
    inputs = (batch, clip, RandomTexts(args.batch, clip.dim, device), RitcConfig())
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {args.threads} threads, {device}")
    print(f"python {platform.python_version()}, torch {torch.__version__}, open_clip {open_clip.__version__}")
    print(f"batch {args.batch}, {int(labels.sum())} pairs, {cam_net.backbone} at {side}, CLIP at {clip.image_size}")
    steps = {"vectorised": vectorised, "looped": looped}
    results, times = in_turn({name: lambda step=step: run(step, network, *inputs) for name, step in steps.items()},
                             args.repeats, device)  # fmt: skip
    seconds = {name: statistics.median(taken) for name, taken in times.items()}
    kind = "GPU" if device.type == "cuda" else "CPU"
    for name, taken in times.items():
        print(f"{name:11s} {shown(taken)} {kind} ms a step, loss {results[name][0]:.6f}")
    torch.testing.assert_close(results["vectorised"][0], results["looped"][0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(results["vectorised"][1], results["looped"][1], rtol=2e-3, atol=2e-4)
    print(f"ratio       {seconds['looped'] / seconds['vectorised']:9.2f}")
    if args.full:
        with FlopCounterMode(display=False) as counter:
            run(vectorised, network, *inputs)
        print(f"FLOPs       {counter.get_total_flops() / 1e12:9.3f} T, forward and backward")
    if device.type == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:9.2f} GiB of the device")
    else:
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:9.2f} GiB of the process")


if __name__ == "__main__":
    main()
