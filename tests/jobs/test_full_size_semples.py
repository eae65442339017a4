"""WeakTr and SemPLeS at the published sizes with random weights: DeiT-S at 224, CLIP ViT-B/32, batch 64.

Run by `make test-slow`. Each test prints what it measured as a Markdown table. The classification step is WeakTr's:
three losses, the whole network learns. The matching step is SemPLeS's: head and fusion learn through masks that CLIP
looks through (rows S3, S4, S8).
"""

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from qaclims_ray.methods.region_features import Regions
from qaclims_ray.methods.semples.matching import matching_step, region_options
from qaclims_ray.models.clip.frozen import FrozenClip
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.models.generators.mask_generator import build_mask_generator
from qaclims_ray.models.generators.weaktr import WeakTr
from qaclims_ray.presets.table import preset
from tests.jobs.test_full_size import MEMORY_LIMIT_GIB, measured, num_millions, show, vit_gflop

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

BATCH, SIZE, CLASSES = 64, 224, 20
TOKENS = CLASSES + 14**2


def full_size_network() -> WeakTr:
    config = CamNetConfig(generator="weaktr", backbone="deit_small_patch16_224")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_mask_generator(config, CLASSES)
    assert isinstance(network, WeakTr)
    return network.train()


def images() -> Tensor:
    return torch.randn(BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def pairs() -> tuple[Tensor, Tensor]:
    """Image and class of each pair: 1.5 classes an image, as in VOC."""
    present = [(image, image % CLASSES) for image in range(BATCH)]
    present += [(image, (image + 7) % CLASSES) for image in range(0, BATCH, 2)]
    return tuple(torch.tensor(column) for column in zip(*sorted(present), strict=True))  # type: ignore[return-value]


def forward_gflop() -> float:
    """Of one image: the ViT, the 3x3 head, and the fusion of attention maps."""
    head = 2 * 14**2 * 9 * 384 * CLASSES / 1e9
    fusion = 2 * 72 * TOKENS**2 / 1e9
    return sum(vit_gflop(TOKENS + 1, 3 * 16**2, 384, 12)) + head + fusion


def norms(parameters) -> list[float]:
    return [float(parameter.grad.norm()) for parameter in parameters]


def test_classification_step():
    network, image = full_size_network(), images()
    image_ids, class_ids = pairs()
    labels = torch.zeros(BATCH, CLASSES)
    labels[image_ids, class_ids] = 1
    with measured() as used:
        scores = network(image, want="scores")
        loss = torch.stack([F.multilabel_soft_margin_loss(score, labels) for score in scores]).sum()
        loss.backward()
    head, backbone = norms(network.head_parameters()), norms(network.backbone_parameters())
    assert all(np.isfinite(norm) and norm > 0 for norm in (*head, *backbone))
    gflop = used.gflop / BATCH
    show(
        f"WeakTr, classification step, {BATCH} images at {SIZE} px",
        {
            "parameters, WeakTr (DeiT-S)": num_millions(network.parameters()),
            "scores": ", ".join(str(tuple(score.shape)) for score in scores),
            "GFLOP per image, forward and backward": f"{gflop:.1f}",
            "loss": f"{float(loss.detach()):.4f}",
            "gradient norm of head and fusion, backbone": f"{np.linalg.norm(head):.3g}, {np.linalg.norm(backbone):.3g}",
            "peak memory": used.memory,
            "seconds": f"{used.seconds:.1f}",
        },
    )
    assert gflop == pytest.approx(3 * forward_gflop(), rel=0.03)
    assert used.peak_gib < MEMORY_LIMIT_GIB


def test_matching_step():
    network, image = full_size_network(), images()
    for parameter in network.backbone_parameters():
        parameter.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = open_clip.create_model("ViT-B-32-quickgelu", pretrained=None)
    clip = FrozenClip(model, open_clip.get_tokenizer("ViT-B-32-quickgelu"))
    before = clip.fingerprint()
    texts = clip.encode_texts([f"a photo of class {class_id}." for class_id in range(CLASSES)])
    image_ids, class_ids = pairs()
    labels = torch.zeros(BATCH, CLASSES)
    labels[image_ids, class_ids] = 1
    published = preset("voc12_weaktr")
    net, options = published.cam_net, region_options(published.semples, epsilon=published.semples.mask_epsilon)
    regions = Regions(clip=clip, options=options, image_mean=net.image_mean, image_std=net.image_std)
    with measured() as used:
        result = matching_step(
            network,
            {"image": image, "labels": labels},
            regions=regions,
            class_texts=texts,
            prompts=None,
            semples=published.semples,
        )
        loss = result.loss
        loss.backward()
    head = norms(network.head_parameters())
    assert result.counts["pairs"] == len(image_ids)
    assert all(np.isfinite(norm) and norm > 0 for norm in head)
    assert not any(p.grad is not None for p in (*network.backbone_parameters(), *clip.parameters()))
    assert clip.fingerprint() == before
    gflop = used.gflop / BATCH
    regions = 2 * len(image_ids) / BATCH
    show(
        f"SemPLeS, matching step, {BATCH} images at {SIZE} px, {len(image_ids)} pairs, {2 * len(image_ids)} regions",
        {
            "parameters, WeakTr; of it head and fusion": (
                f"{num_millions(network.parameters())}; {sum(p.numel() for p in network.head_parameters())}"
            ),
            "parameters, CLIP's image tower": num_millions(clip.model.visual.parameters()),
            "GFLOP per image, forward and backward": f"{gflop:.1f}",
            "of it WeakTr's forward, from its sizes": f"{forward_gflop():.1f}",
            "loss": f"{float(loss.detach()):.4f}",
            "gradient norm of head and fusion": f"{np.linalg.norm(head):.3g}",
            "peak memory": used.memory,
            "seconds": f"{used.seconds:.1f}",
        },
    )
    # CLIP: forward, and back to the pixels; its weights learn nothing.
    weights, attention = vit_gflop(50, 3 * 32**2, 768, 12)
    assert gflop == pytest.approx(forward_gflop() + regions * 2 * (weights + attention), rel=0.05)
    assert used.peak_gib < MEMORY_LIMIT_GIB
