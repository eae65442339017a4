"""The published sizes with random weights: one text-contrast step, one corpus batch, one image's multi-scale CAMs.

Run by `make test-slow`; a few GiB and minutes on a CPU. Each test prints what it measured as a Markdown table, and
docs/results/full_size.md keeps one such measurement. FLOPs are counted, not estimated: two per multiply-add.
"""

import contextlib
import dataclasses
import gc
import platform
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import psutil
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    BlipConfig,
    BlipForQuestionAnswering,
    BlipImageProcessor,
    BlipProcessor,
    PreTrainedTokenizerFast,
)

from qaclims_ray.cams.inference import compute_cams
from qaclims_ray.corpus.questions import OFFICIAL_QUESTIONS
from qaclims_ray.data.classes import VOC_CLASSES
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.methods.qa_clims.task import train_ritc
from qaclims_ray.models.clip.frozen import FrozenClip, load_clip
from qaclims_ray.models.generators.cam_net import CamNet, build_cam_net, load_cam_net, save_cam_net
from qaclims_ray.models.vqa.blip import load_vqa
from qaclims_ray.presets.voc import voc12
from qaclims_ray.run_config import with_overrides
from qaclims_ray.text.bank import build_bank
from qaclims_ray.training.context import LocalContext
from tests.ritc_fakes import with_setup

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

GIGA, GIB = 1e9, 2**30
MEMORY_LIMIT_GIB = 12
"""What each test may take at most; a laptop with 16 GiB can run them."""
LABELS = ((7,), (11, 14))
"""Classes of two images: 1.5 an image, as in VOC."""
IMAGE_SIZE = (375, 500)


@dataclass
class Measurement:
    """Wall clock, peak memory and FLOPs of a block."""

    seconds: float = 0.0
    start_gib: float = 0.0
    peak_gib: float = 0.0
    counter: FlopCounterMode = field(default_factory=lambda: FlopCounterMode(display=False))

    @property
    def gflop(self) -> float:
        return self.counter.get_total_flops() / GIGA

    @property
    def memory(self) -> str:
        """Peak of the whole process, and what it already held."""
        return f"{self.peak_gib:.1f} GiB ({self.start_gib:.1f} GiB before)"


@contextlib.contextmanager
def measured() -> Iterator[Measurement]:
    """Count FLOPs and sample the resident memory of this process while the block runs."""
    gc.collect()
    stop, process = threading.Event(), psutil.Process()
    measurement = Measurement(start_gib=process.memory_info().rss / GIB)

    def sample() -> None:
        while not stop.wait(0.02):
            measurement.peak_gib = max(measurement.peak_gib, process.memory_info().rss / GIB)

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    started = time.perf_counter()
    try:
        with measurement.counter:
            yield measurement
    finally:
        measurement.seconds = time.perf_counter() - started
        stop.set()
        sampler.join()


def show(title: str, rows: dict[str, str]) -> None:
    versions = f"python {platform.python_version()}, torch {torch.__version__}, open_clip {open_clip.__version__}"
    print(f"\n\n{title} ({versions}, transformers {transformers.__version__}, {torch.get_num_threads()} thread(s))\n")
    print("| Quantity | Value |\n|---|---|")
    print("\n".join(f"| {name} | {value} |" for name, value in rows.items()))


def num_millions(parameters) -> str:
    return f"{sum(parameter.numel() for parameter in parameters) / 1e6:.1f} M"


def vit_gflop(num_tokens: int, patch_dim: int, width: int, num_layers: int) -> tuple[float, float]:
    """Forward FLOPs of a vision transformer with hidden layers four times as wide: of weights, of attention."""
    weights = 2 * (num_tokens - 1) * patch_dim * width + num_layers * 2 * num_tokens * 12 * width**2
    return weights / GIGA, num_layers * 2 * 2 * num_tokens**2 * width / GIGA


def random_pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_manifest_images(folder: Path) -> Manifest:
    height, width = IMAGE_SIZE
    records = []
    for index, labels in enumerate(LABELS):
        path = folder / f"image_{index}.png"
        Image.fromarray(random_pixels(index, height, width, 3)).save(path)
        records.append(ImageRecord(f"image_{index}", str(path), width, height, labels, splits=("train",)))
    return Manifest(VOC_CLASSES, tuple(records))


def some_answers(manifest: Manifest) -> pd.DataFrame:
    """A corpus with an answer to every official question about every pair."""
    words = ("grass", "sky", "road", "tree", "kitchen", "table", "window", "field")
    rows = [
        {
            "image_id": record.image_id,
            "class_id": class_id,
            "class_name": VOC_CLASSES[class_id],
            "question_index": index,
            "question": question.ask(VOC_CLASSES[class_id]),
            "kind": question.kind,
            "group": question.group,
            "raw_answer": words[(index + class_id) % len(words)],
            "answer": words[(index + class_id) % len(words)],
            "status": "ok",
            "error": None,
        }
        for record in manifest.records
        for class_id in record.labels
        for index, question in enumerate(OFFICIAL_QUESTIONS)
    ]
    return pd.DataFrame(rows)


def random_network() -> CamNet:
    """ResNet-50 of the preset without pretrained weights."""
    config = dataclasses.replace(voc12().cam_net, weights="")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = build_cam_net(config, len(VOC_CLASSES))
    for name, parameter in network.named_parameters():
        if name.endswith("bn3.weight"):
            # timm starts the last norm of every block at zero, which hides the block's other weights from gradients.
            torch.nn.init.constant_(parameter, 0.5)
    return network


@pytest.fixture
def mask_adapted_clip(tmp_path: Path) -> FrozenClip:
    """ViT-L/14 with mask tokens of depth 3, read from a file laid out as OVSeg's; the file goes at once."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.create_model("ViT-L-14-quickgelu", pretrained=None)
        weights = model.state_dict() | {"visual.mask_embedding": 0.02 * torch.randn(3, 256, 1024)}
    path = tmp_path / "ovseg.pth"
    torch.save({"state_dict": {f"module.{name}": value for name, value in weights.items()}}, path)
    del model, weights
    clip = load_clip(voc12().clip.model, str(path), device="cpu", mask_adapted=True)
    path.unlink()
    return clip


class MeasuredContext(LocalContext):
    """Notes the FLOPs that were counted before the first step."""

    def __init__(self, checkpoint_root: str, counter: FlopCounterMode) -> None:
        super().__init__(checkpoint_root)
        self._counter = counter
        self.gflop_before = 0.0

    def latest_checkpoint(self):
        self.gflop_before = self._counter.get_total_flops() / GIGA
        return super().latest_checkpoint()


def test_text_contrast_step(tmp_path, mask_adapted_clip, monkeypatch):
    clip, config, manifest = mask_adapted_clip, voc12(), write_manifest_images(tmp_path)
    config = with_overrides(config, {"ritc.optim.epochs": 1, "ritc.optim.batch_size": len(LABELS)})
    initial = random_network()
    save_cam_net(initial, str(tmp_path / "init"))
    bank = build_bank(some_answers(manifest), manifest, config.text, clip.encode_texts)
    before = clip.fingerprint()

    regions_seen, gradients = [], []
    encode_regions = clip.encode_regions

    def recorded(pixels, token_mask=None):
        features = encode_regions(pixels, token_mask)
        regions_seen.append((tuple(pixels.shape), None if token_mask is None else tuple(token_mask.shape)))
        assert features.shape == (len(pixels), 768)
        return features

    def note_gradients(optimizer, _args, _kwargs):
        groups = [[p for p in group["params"] if p.requires_grad] for group in optimizer.param_groups]
        gradients.append([[float(p.grad.norm()) for p in group] for group in groups])

    monkeypatch.setattr(clip, "encode_regions", recorded)
    hook = register_optimizer_step_pre_hook(note_gradients)
    try:
        with measured() as used:
            context = MeasuredContext(str(tmp_path / "checkpoints"), used.counter)
            metrics = train_ritc(
                **with_setup(
                    manifest=manifest,
                    bank=bank,
                    clip=clip,
                    cam_net=initial.config,
                    augment=config.augment,
                    ritc=config.ritc,
                    init_dir=str(tmp_path / "init"),
                    precision="fp32",
                    loader_workers=0,
                    seed=0,
                    context=context,
                )
            )
    finally:
        hook.remove()

    pairs = sum(len(labels) for labels in LABELS)
    assert regions_seen[-1] == ((2 * pairs, 3, 224, 224), (2 * pairs, 1, 224, 224))
    assert np.isfinite(metrics["loss"]) and metrics["loss"] > 0
    assert (metrics["pairs"], metrics["pairs_skipped"]) == (pairs, 0)
    (backbone, head), *more = gradients
    assert not more, "one step"
    assert len(head) == 1 and len(backbone) == 52 * 3, "52 convolutions and norms of ResNet-50; its stem is frozen"
    assert all(np.isfinite(norm) and norm > 0 for norm in (*backbone, *head))
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in clip.parameters())
    assert clip.fingerprint() == before
    step_gflop = (used.gflop - context.gflop_before) / len(LABELS)
    with context.latest_checkpoint() as folder:
        trained = load_cam_net(folder)
    assert not torch.equal(trained.classifier.weight, initial.classifier.weight)
    with torch.no_grad():
        cam_shape = tuple(trained(torch.zeros(1, 3, config.augment.crop_px, config.augment.crop_px)).shape[1:])
    assert cam_shape == (20, 32, 32)

    backbone_gflop = step_gflop - expected_clip_gflop()
    show(
        f"Text-contrast step, {len(LABELS)} images at {config.augment.crop_px} px, {pairs} pairs, {2 * pairs} regions",
        {
            "parameters, ResNet-50 and classifier": num_millions(initial.parameters()),
            "parameters, mask-adapted ViT-L/14, both towers": num_millions(clip.parameters()),
            "parameters, its image tower": num_millions(clip.model.visual.parameters()),
            "mask tokens": str(tuple(clip.mask_embedding.shape)),
            "CAM logits per image": str(cam_shape),
            "regions and masks": f"{regions_seen[-1][0]}, {regions_seen[-1][1]}",
            "GFLOP per image, forward and backward": f"{step_gflop:.0f}",
            "of it CLIP, from its sizes": f"{expected_clip_gflop():.0f}",
            "of it ResNet-50": f"{backbone_gflop:.0f}",
            "loss": f"{metrics['loss']:.4f}",
            "gradient norm of the classifier": f"{head[0]:.3g}",
            "gradient norm of the backbone": f"{np.linalg.norm(backbone):.3g}",
            "peak memory": used.memory,
            "seconds, start-up checks and checkpoint included": f"{used.seconds:.1f}",
        },
    )
    assert backbone_gflop == pytest.approx(192, rel=0.02)
    assert used.peak_gib < MEMORY_LIMIT_GIB


def expected_clip_gflop() -> float:
    """Of one image: both regions of its 1.5 pairs, forward, and back to the pixels; weights learn nothing.

    Backward costs what forward costs, but attention 5 products instead of 2, since its kernel computes scores again.
    """
    weights, attention = vit_gflop(257, 3 * 14**2, 1024, 24)
    return 2 * sum(map(len, LABELS)) / len(LABELS) * (2 * weights + 3.5 * attention)


def make_vqa(num_words: int = 30524) -> BlipForQuestionAnswering:
    """BLIP of the published size (ViT-B/16, 12 + 12 text layers) at random weights that give varied answers.

    With transformers' own initial values all answers are the same word: attention is uniform, and the vision tower is
    almost zero. Sharper attention and a word head of its own make an answer depend on image and question; still
    sharper, and rounding alone would change the answers.
    """
    config = BlipConfig(
        text_config={"num_attention_heads": 12, "tie_word_embeddings": False, "vocab_size": num_words},
        vision_config={"initializer_range": 0.02},
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = BlipForQuestionAnswering(config).eval()
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and name.startswith("text") and ".layer." in name:
                weight *= 4 if "query" in name or "key" in name else 1
                if "crossattention.self.value" in name:
                    weight *= 4 if name.startswith("text_decoder") else 3
        head = model.text_decoder.cls.predictions.decoder
        head.weight.normal_(std=0.1)
        head.bias.zero_()
        # About as high as the best word, so that answers end at different steps; never padding.
        head.bias[config.text_config.sep_token_id], head.bias[config.text_config.pad_token_id] = 9.0, -100.0
    return model


def make_vqa_processor(text_config) -> BlipProcessor:
    """Words of the official questions among as many others as BLIP's vocabulary has."""
    words = [f"w{index}" for index in range(text_config.vocab_size)]
    words[text_config.pad_token_id], words[text_config.sep_token_id], words[101] = "[PAD]", "[SEP]", "[CLS]"
    asked = sorted({word for texts in vqa_questions() for text in texts for word in text.split()})
    words[2000 : 2000 + len(asked)] = asked
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="w1"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 101), ("[SEP]", text_config.sep_token_id)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", sep_token="[SEP]")
    size = voc12().corpus.image_size
    return BlipProcessor(BlipImageProcessor(size={"height": size, "width": size}), fast)


def vqa_questions() -> list[list[str]]:
    """All official questions about each class of each image: 16 and 32."""
    return [
        [question.ask(VOC_CLASSES[class_id]) for class_id in labels for question in OFFICIAL_QUESTIONS]
        for labels in LABELS
    ]


def test_corpus_batch(tmp_path):
    settings, questions = voc12().corpus, vqa_questions()
    size, max_length = settings.image_size, settings.max_length
    model = make_vqa()
    processor = make_vqa_processor(model.config.text_config)
    model.save_pretrained(tmp_path / "vqa")
    processor.save_pretrained(tmp_path / "vqa")
    vqa = load_vqa(str(tmp_path / "vqa"), image_size=size, device="cpu")
    shutil.rmtree(tmp_path / "vqa")
    images = torch.from_numpy(random_pixels(3, 2, 3, size, size))
    rows = {
        "parameters": num_millions(model.parameters()),
        "of it vision, question encoder, answer decoder": ", ".join(
            num_millions(part.parameters()) for part in (model.vision_model, model.text_encoder, model.text_decoder)
        ),
        "images and questions": f"{tuple(images.shape)}, {[len(texts) for texts in questions]}",
        "vision tokens": str((size // 16) ** 2 + 1),
    }
    for num_beams in (settings.num_beams, 1):
        search = {"num_beams": num_beams, "min_length": settings.min_length, "max_length": max_length}
        answers = vqa.answer(images, questions, **search)
        assert [len(row) for row in answers] == [16, 32]
        distinct = {answer for row in answers for answer in row}
        assert len(distinct) > 12, "the check needs answers that depend on image and question"
        # One question of each image, of different length, as the model's own generate answers them.
        asked = [(0, 10), (1, 26)]
        with measured() as alone:
            expected = [generate(model, processor, images[i], questions[i][j], **search) for i, j in asked]
        assert [answers[i][j] for i, j in asked] == expected
        assert len({len(answer.split()) for answer in expected}) > 1, "the check needs answers of different length"
        with measured() as used:
            vqa.answer(images, questions, num_beams=num_beams, min_length=5, max_length=5)
        gflop, kind = used.gflop / len(images), f"{num_beams} beam(s)"
        lengths = [len(answer.split()) for row in answers for answer in row]
        one_by_one = alone.gflop / len(asked) * 24
        rows |= {
            f"{kind}: distinct answers of 48": str(len(distinct)),
            f"{kind}: answer tokens, least, mean, most": f"{min(lengths)}, {np.mean(lengths):.1f}, {max(lengths)}",
            f"{kind}: equal to generate": f"{len(asked)} of {len(asked)}: {expected}",
            f"{kind}: GFLOP per image, 4 answer tokens": f"{gflop:.0f}",
            f"{kind}: GFLOP per image one question at a time": f"{one_by_one:.0f}",
            f"{kind}: peak memory, two copies of the weights": used.memory,
            f"{kind}: seconds for 2 images, 48 answers": f"{used.seconds:.1f}",
        }
        # The image once; the keys and values of 12 layers once; then some ten question and four answer tokens.
        image_gflop = sum(vit_gflop(901, 3 * 16**2, 768, 12)) + 12 * 2 * 2 * 901 * 768**2 / GIGA
        assert image_gflop < gflop < 1.8 * image_gflop
        assert gflop < one_by_one / 8
        assert used.peak_gib < MEMORY_LIMIT_GIB
    show("Corpus batch, BLIP base at 480 px", rows)


def generate(model: BlipForQuestionAnswering, processor: BlipProcessor, image, question: str, **search) -> str:
    inputs = processor(images=image, text=question, return_tensors="pt")
    tokens = model.generate(**inputs, interpolate_pos_encoding=True, **search)
    return processor.tokenizer.decode(tokens[0, 1:], skip_special_tokens=True)


def test_multi_scale_cams():
    config, network = voc12(), random_network()
    height, width = IMAGE_SIZE
    image = torch.from_numpy(random_pixels(5, 3, height, width))
    with measured() as used:
        (cam,) = compute_cams(
            network,
            [image],
            [LABELS[1]],
            ["image"],
            config.cams,
            config.cam_net.image_mean,
            config.cam_net.image_std,
        )
    assert cam.full.shape == (2, height, width)
    assert cam.grid.shape == (2, 94, 125)
    assert all(0 <= float(maps.min()) and 0.99 < float(maps.max()) <= 1 for maps in (cam.full, cam.grid))
    show(
        f"CAMs of one image, {height}x{width} pixels, scales {config.cams.scales} with mirror images",
        {
            "parameters, ResNet-50 and classifier": num_millions(network.parameters()),
            "full maps, grid maps": f"{tuple(cam.full.shape)}, {tuple(cam.grid.shape)}",
            "GFLOP": f"{used.gflop:.0f}",
            "peak memory": used.memory,
            "seconds": f"{used.seconds:.1f}",
        },
    )
    assert used.gflop == pytest.approx(708, rel=0.02)
    assert used.peak_gib < MEMORY_LIMIT_GIB
