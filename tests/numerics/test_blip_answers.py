"""Batched answers equal transformers' own ``generate``, one unpadded question at a time, token for token."""

import jaxtyping
import pytest
import torch
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from torch._dynamo.backends.debugging import aot_eager
from transformers import (
    BlipConfig,
    BlipForQuestionAnswering,
    BlipImageProcessor,
    BlipProcessor,
    PreTrainedTokenizerFast,
)

from qaclims_ray.models.vqa.blip import BlipVqa

WORDS = [f"w{index}" for index in range(43)]
CLS, SEP, DEC = 1, 2, 3
IMAGE_SIZE = 32


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Only [PAD] and [SEP] are special, so that a decoded answer shows every other token."""
    vocabulary = ["[PAD]", "[CLS]", "[SEP]", "[DEC]", *WORDS]
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(vocabulary)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", sep_token="[SEP]")


def make_model(seed: int, *, end_bias: float = 0.0) -> BlipForQuestionAnswering:
    """A random model whose answers differ between questions and end at different steps."""
    tokenizer = make_tokenizer()
    shared = {"hidden_size": 32, "intermediate_size": 64, "projection_dim": 32, "num_attention_heads": 4}
    text = {
        "vocab_size": len(tokenizer),
        "encoder_hidden_size": 32,
        "num_hidden_layers": 2,
        "max_position_embeddings": 48,
        "bos_token_id": DEC,
        "eos_token_id": SEP,
        "sep_token_id": SEP,
        "pad_token_id": 0,
        "initializer_range": 0.3,
    }
    vision = {"num_hidden_layers": 2, "image_size": IMAGE_SIZE, "patch_size": 8, "initializer_range": 0.3}
    config = BlipConfig(
        text_config={**shared, **text},
        vision_config={**shared, **vision},
        projection_dim=32,
        image_text_hidden_size=32,
        initializer_range=0.3,
    )
    model = BlipForQuestionAnswering(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        # Drawn here, because versions of transformers draw them in orders of their own.
        for _, weight in sorted(model.named_parameters()):
            if weight.ndim > 1:
                weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
        # Scores not tied to the embeddings and strong positions keep answers from repeating one token; strong
        # cross-attention makes them depend on the image.
        head = model.text_decoder.cls.predictions.decoder
        head.weight = torch.nn.Parameter(torch.randn(head.weight.shape, generator=generator) * 0.2)
        head.bias = torch.nn.Parameter(torch.zeros(len(head.bias)))
        head.bias[SEP], head.bias[0] = end_bias, -100.0
        model.text_decoder.bert.embeddings.position_embeddings.weight *= 4
        for name, weight in model.named_parameters():
            if name.startswith("text_encoder") and name.endswith("crossattention.self.value.weight"):
                weight *= 6
    return model


def make_processor(image_size: int) -> BlipProcessor:
    size = {"height": image_size, "width": image_size}
    image_processor = BlipImageProcessor(size=size, image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.25])
    return BlipProcessor(image_processor, make_tokenizer())


def make_questions(seed: int, counts: list[int]) -> list[list[str]]:
    generator = torch.Generator().manual_seed(seed)

    def question() -> str:
        length = int(torch.randint(1, 10, (), generator=generator))
        return " ".join(WORDS[index] for index in torch.randint(40, (length,), generator=generator).tolist())

    return [[question() for _ in range(count)] for count in counts]


def make_images(seed: int, count: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(100 + seed)
    return torch.randint(256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def answer_one_by_one(model, images, questions, *, interpolate=False, **search) -> list[list[str]]:
    processor = make_processor(images.shape[-1])
    answers = []
    for image, texts in zip(images, questions, strict=True):
        answers.append([])
        for text in texts:
            inputs = processor(images=image, text=text, return_tensors="pt")
            tokens = model.generate(**inputs, interpolate_pos_encoding=interpolate, **search)
            answers[-1].append(processor.tokenizer.decode(tokens[0, 1:], skip_special_tokens=True))
    return answers


@pytest.mark.parametrize("num_beams", [1, 2, 3])
@pytest.mark.parametrize(
    ("seed", "end_bias", "min_length", "image_size"),
    [(0, 3.0, 1, 32), (1, 3.0, 1, 48), (2, 3.0, 4, 32), (4, 2.0, 1, 32), (3, -9.0, 1, 64)],
)
def test_answers_equal_generate(num_beams, seed, end_bias, min_length, image_size):
    model = make_model(seed, end_bias=end_bias)
    questions = make_questions(seed, [5, 0, 7, 3])
    images = make_images(seed, 4, image_size)
    search = {"num_beams": num_beams, "max_length": 9, "min_length": min_length}
    expected = answer_one_by_one(model, images, questions, interpolate=image_size != IMAGE_SIZE, **search)
    vqa = BlipVqa(model, make_processor(image_size), image_size=image_size)
    for questions_per_batch in (256, 6):
        assert vqa.answer(images, questions, questions_per_batch=questions_per_batch, **search) == expected
    vqa.has_static_shapes = True
    assert vqa.answer(images, questions, **search) == expected
    lengths = {len(text.split()) for texts in expected for text in texts}
    if end_bias > 0:
        assert len(lengths) > 1, "the check needs answers that end at different steps"
    if min_length > 1:
        assert min(lengths) >= min_length - 1
    if end_bias < 0:
        assert max(lengths) == 8


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("length_penalty", [0.0, 2.0, -1.0])
def test_stopping_rules_equal_generate(early_stopping, length_penalty):
    model = make_model(2, end_bias=2.0)
    questions = make_questions(2, [5, 5])
    images = make_images(2, 2, IMAGE_SIZE)
    search = {
        "num_beams": 3,
        "max_length": 7,
        "min_length": 1,
        "early_stopping": early_stopping,
        "length_penalty": length_penalty,
    }
    expected = answer_one_by_one(model, images, questions, **search)
    vqa = BlipVqa(model, make_processor(IMAGE_SIZE), image_size=IMAGE_SIZE)
    assert vqa.answer(images, questions, **search) == expected
    vqa.has_static_shapes = True
    assert vqa.answer(images, questions, **search) == expected


def test_long_questions_are_cut_as_the_tokenizer_does():
    model = make_model(0, end_bias=3.0)
    images = make_images(5, 1, IMAGE_SIZE)
    texts = [" ".join(WORDS[:30]), "w1 w2", " ".join(WORDS[3:40])]
    processor = make_processor(IMAGE_SIZE)
    expected = []
    for text in texts:
        inputs = processor(images=images[0], text=text, return_tensors="pt", truncation=True, max_length=12)
        assert inputs["input_ids"].shape[1] <= 12
        tokens = model.generate(**inputs, num_beams=3, max_length=8, min_length=1)
        expected.append(processor.tokenizer.decode(tokens[0, 1:], skip_special_tokens=True))
    vqa = BlipVqa(model, processor, image_size=IMAGE_SIZE)
    assert vqa.answer(images, [texts], max_length=8, max_question_tokens=12) == [expected]


def test_defaults_are_those_of_generate_for_blip():
    """Beam search's length penalty and stopping rule are what transformers takes for BLIP when nothing is said."""
    defaults = make_model(0).text_decoder.generation_config
    assert defaults.early_stopping in (None, False)
    assert defaults.length_penalty in (None, 1.0)


@pytest.fixture
def unchecked():
    """No checks of types and shapes at run time, which a trace does not get through."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.skipif(
    torch.__version__ < (2, 9),
    reason="the tracer that stands in for a recording does not know namedtuples' _replace up to PyTorch 2.8",
)
def test_encoders_and_steps_can_be_recorded(monkeypatch):
    """Nothing in them is read by the host, and all steps but the first have the same shapes."""
    model = make_model(0, end_bias=3.0)
    questions, images = make_questions(0, [5, 0, 7, 3]), make_images(0, 4, IMAGE_SIZE)
    vqa = BlipVqa(model, make_processor(IMAGE_SIZE), image_size=IMAGE_SIZE)
    search = {"num_beams": 3, "max_length": 9}
    expected = vqa.answer(images, questions, **search)
    traced, calls = [], []

    def backend(graph, inputs):
        traced.append(len(inputs))
        return aot_eager(graph, inputs)

    def recorded(function):
        compiled = torch.compile(function, backend=backend, fullgraph=True, dynamic=False)
        return lambda *tensors: calls.append(1) or compiled(*tensors)

    for holder, name in [(vqa._image_encoder, "forward"), (vqa._question_encoder, "forward"), (vqa, "_advance")]:
        monkeypatch.setattr(holder, name, recorded(getattr(holder, name)))
    vqa.has_static_shapes = True
    assert vqa.answer(images, questions, **search) == expected
    assert len(calls) > 6
    assert len(traced) == 4, "two encoders, the first step and the others"
