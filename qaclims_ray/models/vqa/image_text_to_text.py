"""Any image-text-to-text model of transformers as a VQA model: BLIP-2, LLaVA, SmolVLM, Qwen2-VL and newer ones.

It answers what ``models/vqa/blip.py`` answers, so that the corpus is the same table whatever model was asked. Every
question is a pass of its own through the model, image included: transformers' classes have no common way to keep an
encoded image.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, BatchFeature

from qaclims_ray.errors import ModelError
from qaclims_ray.models.pretrained import read_pretrained
from qaclims_ray.models.weight_files import cause_of

_EXPECTED = "a model that AutoModelForImageTextToText knows, with its processor"

PROBE_QUESTION = "what is in the photo?"


class ImageTextToText:
    """A frozen vision-language model that answers questions about images, one at a time per question."""

    def __init__(self, model: Any, processor: Any) -> None:
        self._model, self._processor = model.eval().requires_grad_(False), processor
        # A decoder goes on from the last token, which must be one of the prompt.
        self._processor.tokenizer.padding_side = "left"
        if self._processor.tokenizer.pad_token is None:
            self._processor.tokenizer.pad_token = self._processor.tokenizer.eos_token

    @torch.inference_mode()
    def answer(
        self,
        images: UInt8[Tensor, "batch 3 height width"],
        questions: Sequence[Sequence[str]],
        *,
        prompt: str = "{}",
        num_beams: int = 1,
        max_length: int = 10,
        min_length: int = 1,
        questions_per_batch: int = 16,
    ) -> list[list[str]]:
        """Answer the questions of each image.

        Args:
            images: RGB; the model's processor brings them to its own size and range.
            questions: those of each image, in the order of ``images``.
            prompt: what the model is told; "{}" stands for the question. A model with a chat template gets it as the
                user's turn beside the image, another one as it is.
            num_beams: beams of the decoder; 1 is greedy.
            max_length: longest answer in tokens.
            min_length: shortest answer in tokens.
            questions_per_batch: pairs of image and question that pass through the model together.

        Returns:
            Answers, as ``questions`` is laid out; without special tokens, else as the model wrote them.
        """
        if len(images) != len(questions):
            raise ValueError(f"{len(images)} images but questions for {len(questions)}")
        pictures = [Image.fromarray(np.asarray(image.permute(1, 2, 0))) for image in images.cpu()]
        places = [(image, column) for image, texts in enumerate(questions) for column in range(len(texts))]
        answers = [[""] * len(texts) for texts in questions]
        for first in range(0, len(places), questions_per_batch):
            batch = places[first : first + questions_per_batch]
            inputs = self._inputs(
                [pictures[image] for image, _ in batch],
                [prompt.replace("{}", questions[image][column]) for image, column in batch],
            )
            found = self._model.generate(
                **inputs, do_sample=False, num_beams=num_beams, max_new_tokens=max_length, min_new_tokens=min_length
            )
            for (image, column), text in zip(batch, self._texts(found, inputs["input_ids"]), strict=True):
                answers[image][column] = text
        return answers

    def _inputs(self, pictures: list[Image.Image], texts: list[str]) -> BatchFeature:
        """Tokens and pixels of one batch, on the model's device."""
        options = {"padding": True, "return_tensors": "pt"}
        if getattr(self._processor, "chat_template", None):
            chats = [
                [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": text}]}]
                for picture, text in zip(pictures, texts, strict=True)
            ]
            inputs = self._processor.apply_chat_template(
                chats, tokenize=True, return_dict=True, add_generation_prompt=True, processor_kwargs=options
            )
        else:
            inputs = self._processor(images=pictures, text=texts, **options)
        return inputs.to(self._model.device, dtype=self._model.dtype)

    def _texts(self, found: Tensor, asked: Tensor) -> list[str]:
        """Answers as text. Decoders repeat the prompt before the answer, models with an encoder do not."""
        length = asked.shape[1]
        repeated = found.shape[1] >= length and bool((found[:, :length] == asked).all())
        return self._processor.batch_decode(found[:, length:] if repeated else found, skip_special_tokens=True)


def load_image_text_to_text(
    model: str, *, prompt: str, device: torch.device | str, dtype: torch.dtype = torch.float32
) -> ImageTextToText:
    """Load a vision-language model from a folder or the Hugging Face hub, and ask it once.

    Args:
        model: a local folder written by ``save_pretrained`` of model and processor, or a hub name such as
            ``HuggingFaceTB/SmolVLM-256M-Instruct`` or ``Salesforce/blip2-opt-2.7b``.
        prompt: what it will be told; tried on a blank image.
        device: where it runs.
        dtype: precision of weights and activations.

    Raises:
        ModelError: model or processor are absent, broken or of another kind, or the model cannot answer the prompt.
    """
    processor = _read(model, "processor", lambda: AutoProcessor.from_pretrained(model))
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise ModelError(
            f"{model} has no complete processor (found {type(processor).__name__}). Expected tokenizer and image "
            "processor beside the weights, as save_pretrained of the model's processor writes them."
        )
    weights, report = _read(
        model,
        "weights",
        lambda: AutoModelForImageTextToText.from_pretrained(model, dtype=dtype, output_loading_info=True),
    )
    if absent := sorted(report["missing_keys"]):
        raise ModelError(
            f"{model} lacks {len(absent)} weights of a {type(weights).__name__} (first: {absent[0]}). Expected all of "
            "them; save the model again with save_pretrained."
        )
    loaded = ImageTextToText(weights.to(device), processor)
    blank = torch.full((1, 3, 64, 64), 127, dtype=torch.uint8)
    try:
        loaded.answer(blank, [[PROBE_QUESTION]], prompt=prompt, max_length=2)
    except torch.OutOfMemoryError:  # says itself what is short, which is no fault of the prompt
        raise
    except Exception as error:  # whatever a foreign model and its template do with this prompt
        raise ModelError(
            f"{model} ({type(weights).__name__}) cannot answer {prompt!r} about a blank image: "
            f"{type(error).__name__}: {cause_of(error)}. A model without a chat template may need its image token "
            'in corpus.prompt, such as "USER: <image>\\n{} ASSISTANT:"; see its model card.'
        ) from error
    return loaded


def _read(model: str, what: str, load: Callable[[], Any]) -> Any:
    return read_pretrained(f"{what} of the vision-language model", model, load, expected=_EXPECTED)
