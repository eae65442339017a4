"""Time answering questions our way beside the naive way, in one run.

The naive way is transformers' ``generate``, one question at a time, the image encoded anew for each. Ours encodes
each image once and answers the questions of several images together. Both get decoded images and give decoded
answers; image files, resizing and storage are outside.

Usage: python -m benchmarks.corpus            tiny VQA of the miniature world, on the CPU
       python -m benchmarks.corpus --full     full-size BLIP (ViT-B, 480 px) with random weights, on a GPU
"""

import argparse
import copy
import datetime
import platform
import statistics
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import (
    AutoProcessor,
    BlipConfig,
    BlipForQuestionAnswering,
    BlipImageProcessor,
    BlipProcessor,
    PreTrainedTokenizerFast,
)

import qaclims_ray.miniature
from benchmarks.clock import in_turn
from qaclims_ray.corpus.questions import OFFICIAL_QUESTIONS
from qaclims_ray.miniature.scenes import scenes
from qaclims_ray.miniature.vocabulary import CLASSES
from qaclims_ray.models.vqa.blip import BlipVqa

TINY_VQA = Path(qaclims_ray.miniature.__file__).parent / "weights" / "vqa"
FULL_IMAGE_SIZE = 480
FULL_QUESTIONS_PER_IMAGE = 24
"""Sixteen templates times 1.5 classes per image, as in VOC."""


def tiny_case(num_images: int) -> tuple:
    """Return model, processor, images, questions and image size of the miniature world."""
    model = BlipForQuestionAnswering.from_pretrained(TINY_VQA, dtype=torch.float32)
    drawn = scenes(num_images, stream=42, seed=0)
    images = torch.from_numpy(np.stack([scene.image for scene in drawn])).permute(0, 3, 1, 2).contiguous()
    questions = [
        [question.ask(CLASSES[class_id]) for class_id in scene.class_ids for question in OFFICIAL_QUESTIONS]
        for scene in drawn
    ]
    return model, AutoProcessor.from_pretrained(TINY_VQA), images, questions, images.shape[-1]


def full_case(num_images: int) -> tuple:
    """Return the same for a full-size BLIP with random weights, random images and questions of 12 tokens."""
    torch.manual_seed(0)
    model = BlipForQuestionAnswering(BlipConfig())
    text_config = model.config.text_config
    words = [f"w{index}" for index in range(text_config.vocab_size)]
    words[text_config.pad_token_id], words[text_config.sep_token_id] = "[PAD]", "[SEP]"
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="w1"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="w101 $A [SEP]", special_tokens=[("w101", 101), ("[SEP]", text_config.sep_token_id)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", sep_token="[SEP]")
    image_processor = BlipImageProcessor(size={"height": FULL_IMAGE_SIZE, "width": FULL_IMAGE_SIZE})
    images = torch.randint(256, (num_images, 3, FULL_IMAGE_SIZE, FULL_IMAGE_SIZE), dtype=torch.uint8)
    tokens = torch.randint(1000, text_config.vocab_size - 10, (num_images, FULL_QUESTIONS_PER_IMAGE, 10))
    questions = [[" ".join(words[token] for token in row) for row in rows] for rows in tokens.tolist()]
    return model, BlipProcessor(image_processor, fast), images, questions, FULL_IMAGE_SIZE


def answer_naively(model, vqa: BlipVqa, images, questions, search: dict) -> list[list[str]]:
    """Answer one question at a time with ``generate``; the image is normalised once (in favour of this way)."""
    answers = []
    mean, std = (torch.tensor(values, device=vqa.device).view(3, 1, 1) for values in (vqa.image_mean, vqa.image_std))
    for image, texts in zip(images, questions, strict=True):
        pixels = ((image.to(vqa.device).float() / 255 - mean) / std)[None].to(vqa.dtype)
        answers.append([])
        for text in texts:
            inputs = vqa.tokenizer(text, return_tensors="pt", truncation=True, max_length=35).to(vqa.device)
            tokens = model.generate(
                inputs["input_ids"],
                pixels,
                attention_mask=inputs["attention_mask"],
                interpolate_pos_encoding=True,
                **search,
            )
            answers[-1].append(vqa.tokenizer.decode(tokens[0, 1:], skip_special_tokens=True))
    return answers


def describe(device: torch.device) -> str:
    """Name machine, versions and date."""
    machine = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    versions = f"python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}"
    threads = f"{torch.get_num_threads()} CPU thread(s)"
    return f"{machine}, {threads}, {versions}, {datetime.date.today().isoformat()}"


def main() -> None:
    """Parse the command line, run both ways and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="full-size BLIP with random weights on a GPU")
    parser.add_argument("--images", type=int, default=32, help="images answered our way")
    parser.add_argument("--naive-images", type=int, default=4, help="the first so many are answered the naive way too")
    parser.add_argument("--num-beams", type=int, default=3)
    parser.add_argument("--max-length", type=int, default=None, help="default: 10, with --full 5 (4 new tokens)")
    parser.add_argument("--questions-per-batch", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: PyTorch's)")
    options = parser.parse_args()
    if options.full and not torch.cuda.is_available():
        parser.error("--full needs a GPU, and PyTorch finds none")
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device("cuda" if options.full else "cpu")
    case = full_case if options.full else tiny_case
    model, processor, images, questions, image_size = case(options.images)
    model = model.to(device).eval()
    max_length = options.max_length or (5 if options.full else 10)
    search = {"num_beams": options.num_beams, "max_length": max_length, "min_length": 1}
    variants = {"batched, fp32": model}
    if options.full:
        variants["batched, bf16"] = copy.deepcopy(model).to(torch.bfloat16)

    print(describe(device))
    print(
        f"{image_size} px, {options.num_beams} beam(s), {sum(map(len, questions)) / len(questions):.1f} questions/image"
    )
    print(f"{'way':24}{'images':>8}{'seconds':>10}{'images/s':>10}{'answers/s':>11}{'ratio':>8}{'same answers':>14}")
    some, asked = images[: options.naive_images], questions[: options.naive_images]
    vqas = {name: BlipVqa(variant, processor, image_size=image_size) for name, variant in variants.items()}
    first = next(iter(vqas.values()))
    expected = answer_naively(model, first, some, asked, search)
    num_asked = sum(map(len, asked))
    together = {"questions_per_batch": options.questions_per_batch, **search}
    ways = {"one by one, fp32": lambda: answer_naively(model, first, some, asked, search)}
    ways |= {name: lambda vqa=vqa: vqa.answer(images, questions, **together) for name, vqa in vqas.items()}
    seconds = {way: statistics.median(times) for way, times in in_turn(ways, options.repeats, device)[1].items()}
    naive_rate = len(some) / seconds["one by one, fp32"]
    for name, taken in seconds.items():
        is_naive = name not in vqas
        given = expected if is_naive else vqas[name].answer(some, asked, **together)
        same = sum(
            a == b for ours, theirs in zip(given, expected, strict=True) for a, b in zip(ours, theirs, strict=True)
        )
        count, answers = (len(some), num_asked) if is_naive else (len(images), sum(map(len, questions)))
        rate, answers = count / taken, answers / taken
        agreement = f"{same}/{num_asked}"
        print(f"{name:24}{count:8}{taken:10.3f}{rate:10.2f}{answers:11.1f}{rate / naive_rate:8.1f}{agreement:>14}")


if __name__ == "__main__":
    main()
