"""Settings of the corpus: which VQA model answers which questions (QAPE, QA-CLIMS 3.2).

Letters and numbers such as "Q1" name rows of ``docs/method.md``.
"""

from typing import Literal

from qaclims_ray.models.precision import Arithmetic, Precision, stands_for
from qaclims_ray.settings import require, require_at_least, require_text, settings

Engine = Literal["blip", "image_text_to_text", "vllm"]


@settings
class CorpusConfig:
    """Asking a visual question answering model what each image shows (QA-CLIMS 3.2, rows Q1-Q5, Q13)."""

    engine: Engine = "blip"
    """What answers: BLIP VQA (the papers'), any image-text-to-text model of transformers (BLIP-2 and newer), or vLLM
    through ray.data.llm."""
    model: str = "Salesforce/blip-vqa-capfilt-large"
    """Model of that engine: hub name or local folder; "miniature" is the BLIP shipped with the package."""
    image_size: int = 480
    """Side of the square input in pixels; bicubic, aspect not kept (Q1). Other engines resize it again to their own."""
    num_beams: int = 3
    """Beams of the decoder; 1 is greedy (Q1)."""
    max_length: int = 10
    """Longest answer in tokens; BLIP counts its start token (Q1)."""
    min_length: int = 1
    """Shortest answer in tokens (Q1)."""
    max_question_tokens: int = 35
    """BLIP: longer questions are cut (Q1)."""
    prompt: str = "{} Answer with one or two words."
    """What engines other than BLIP are told; {} stands for the question. BLIP-2 expects "Question: {} Answer:"."""
    questions: str = "official"
    """Question set: official, paper, histology, or a JSON file (Q2)."""
    class_aliases: tuple[tuple[str, str], ...] = ()
    """Pairs (class name, words to use in questions), e.g. (("person", "player"),) (Q3)."""
    lemmatise: bool = True
    """Bring each answer, as a whole string, to its noun lemma; raw answers are kept beside it (Q4)."""
    images_per_shard: int = 32
    """Images in one Parquet shard: what a killed build repeats at most per block in flight."""
    questions_per_batch: int | None = None
    """Questions decoded together. None takes 192; with BLIP on a GPU 32 for each GiB of its memory, at most 1,536."""
    max_failed_fraction: float = 0.01
    """Fail when more than this share of images cannot be read or answered."""
    precision: Precision = "auto"
    """Weights and arithmetic of the VQA model: fp32, bf16, fp16; auto is bf16 on GPUs, fp32 on CPUs."""
    num_actors: int | None = None
    """VQA actors; None as of `cams.num_actors`."""
    gpus_per_actor: float = 0.0
    """GPUs of one actor; fractions share a GPU; 0 runs on the CPU. vLLM: GPUs that one model is spread over."""

    @property
    def arithmetic(self) -> Arithmetic:
        """What `precision` stands for."""
        return stands_for(self.precision, gpus=self.gpus_per_actor, auto="bf16")

    def __post_init__(self) -> None:
        require_at_least(
            self, "corpus", 1, "image_size", "num_beams", "max_length", "min_length", "max_question_tokens",
            "images_per_shard", *(["questions_per_batch"] if self.questions_per_batch is not None else []),
        )  # fmt: skip
        require_at_least(self, "corpus", 0, "gpus_per_actor")
        require(
            self.num_actors is None or self.num_actors >= 1,
            f"corpus.num_actors is {self.num_actors}, expected at least 1, or None",
        )
        require_text(self, "corpus", "model", "questions")
        require(self.min_length <= self.max_length, "corpus.min_length exceeds corpus.max_length")
        require(0 <= self.max_failed_fraction <= 1, "corpus.max_failed_fraction must lie in [0, 1]")
        require(
            self.prompt.count("{}") == 1,
            f"corpus.prompt is {self.prompt!r}, expected text that holds {{}} once, where the question goes",
        )
        require(
            self.engine == "blip" or self.model != "miniature",
            f"corpus.model miniature is a BLIP, but corpus.engine is {self.engine}; name a model of that engine",
        )
        if self.engine == "vllm":
            self._check_vllm()

    def _check_vllm(self) -> None:
        require(
            self.gpus_per_actor >= 1 and self.gpus_per_actor == int(self.gpus_per_actor),
            f"corpus.engine vllm needs whole GPUs, but corpus.gpus_per_actor is {self.gpus_per_actor}; set 1 or more",
        )
        require(
            self.num_beams == 1 and self.min_length == 1,
            f"corpus.engine vllm answers greedily, but corpus.num_beams is {self.num_beams} and corpus.min_length "
            f"{self.min_length}; set both to 1",
        )
