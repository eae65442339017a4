"""Greedy and beam search over many questions at once.

A question that has finished is dropped from the batch, so a long answer does not keep the short ones computing. The
results are those of transformers' ``generate`` run for each question alone (``GenerationMixin._beam_search`` and
greedy ``_sample``): the same finished-hypothesis bookkeeping, the same early stopping rule, the same lengths, which
count the start token.
"""

from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

EarlyStopping = bool | Literal["never"]

UNREACHABLE = -1.0e9
"""Score of a hypothesis that must not be chosen (the value transformers uses, so ties fall the same way)."""


@runtime_checkable
class StepDecoder(Protocol):
    """A decoder that keeps its own past and advances one token at a time. Rows are question-major."""

    def advance(self, tokens: Int[Tensor, " row"]) -> Float[Tensor, "row vocabulary"]:
        """Append one token to every row and return the scores (logits) of the next one."""
        ...

    def select(self, rows: Int[Tensor, " new_row"], questions: Int[Tensor, " kept"] | None) -> None:
        """Go on from copies of the given rows; ``questions`` names the ones kept, None when all are."""
        ...


def greedy_search(
    decoder: StepDecoder,
    *,
    num_questions: int,
    max_length: int,
    min_length: int,
    start_token: int,
    end_token: int,
    pad_token: int,
    device: torch.device | str,
) -> Int[Tensor, "question length"]:
    """Take the most likely token at every step.

    Args:
        decoder: Holds one row per question.
        num_questions: Number of questions.
        max_length: Longest answer in tokens, start token included.
        min_length: The end token is forbidden while an answer, start token included, is shorter than this.
        start_token: First token of every answer.
        end_token: Ends an answer.
        pad_token: Fills the places after the end token.
        device: Where the decoder works.

    Returns:
        The answers, start token included, padded to ``max_length``.
    """
    answers = torch.full((num_questions, max_length), pad_token, dtype=torch.long, device=device)
    answers[:, 0] = start_token
    running = torch.arange(num_questions, device=device)
    for length in range(1, max_length):
        logits = decoder.advance(answers[running, length - 1]).float()
        if length < min_length:
            logits[:, end_token] = -torch.inf
        tokens = logits.argmax(-1)
        answers[running, length] = tokens
        if length + 1 == max_length:
            break
        kept = (tokens != end_token).nonzero()[:, 0]
        if len(kept) == 0:
            break
        if len(kept) < len(running):
            running = running[kept]
            decoder.select(kept, kept)
    return answers


def beam_search(
    decoder: StepDecoder,
    *,
    num_questions: int,
    num_beams: int,
    max_length: int,
    min_length: int,
    start_token: int,
    end_token: int,
    pad_token: int,
    device: torch.device | str,
    length_penalty: float = 1.0,
    early_stopping: EarlyStopping = False,
) -> Int[Tensor, "question length"]:
    """Keep the ``num_beams`` best running answers of every question and return its best finished one.

    Args:
        decoder: Holds one row per question at first, ``num_beams`` rows per question afterwards.
        num_questions: Number of questions.
        num_beams: Running hypotheses per question, at least 1.
        max_length: Longest answer in tokens, start token included; an answer that reaches it counts as finished.
        min_length: The end token is forbidden while an answer, start token included, is shorter than this.
        start_token: First token of every answer.
        end_token: Ends an answer.
        pad_token: Fills the places after the end token.
        device: Where the decoder works.
        length_penalty: A finished score is the summed log-probability divided by (new tokens) ** length_penalty.
        early_stopping: As in transformers: False stops once no running answer beats the worst finished one at its
            present length, True as soon as ``num_beams`` are finished, "never" compares at the longest length.

    Returns:
        The best answer of every question, start token included, padded to ``max_length``.
    """
    beams = _Beams(num_questions, num_beams, max_length, start_token, pad_token, device)
    answers = torch.full((num_questions, max_length), pad_token, dtype=torch.long, device=device)
    asked = torch.arange(num_questions, device=device)
    for length in range(1, max_length):
        # Until the first step is done all beams of a question are one and the same: the decoder runs only one.
        tokens = beams.sequences[:, 0, 0] if length == 1 else beams.sequences[:, :, length - 1].flatten()
        log_probabilities = torch.log_softmax(decoder.advance(tokens).float(), dim=-1)
        if length < min_length:
            log_probabilities[:, end_token] = -torch.inf
        log_probabilities = log_probabilities.view(len(asked), -1, log_probabilities.shape[-1])
        parents, all_ended = beams.extend(log_probabilities, length, end_token, length_penalty)
        done = all_ended | beams.cannot_improve(length + 1, length_penalty, early_stopping)
        answers[asked] = beams.finished[:, 0]
        kept = (~done).nonzero()[:, 0]
        if len(kept) == 0:
            break
        width = log_probabilities.shape[1]
        rows = (kept[:, None] * width + parents[kept]).flatten()  # (kept * beam)
        if len(kept) < len(asked):
            asked = asked[kept]
            beams.keep(kept)
            decoder.select(rows, kept)
        else:
            decoder.select(rows, None)
    return answers


class _Beams:
    """Running and finished hypotheses of the questions still open, best first along the beam axis."""

    def __init__(
        self,
        num_questions: int,
        num_beams: int,
        max_length: int,
        start_token: int,
        pad_token: int,
        device: torch.device | str,
    ):
        shape = (num_questions, num_beams)
        self.num_beams, self.max_length = num_beams, max_length
        self.sequences = torch.full((*shape, max_length), pad_token, dtype=torch.long, device=device)
        self.sequences[:, :, 0] = start_token
        self.scores = torch.full(shape, UNREACHABLE, device=device)
        # At first all beams of a question are the same; all but one have to lose, or its copies would fill the beams.
        self.scores[:, 0] = 0.0
        self.finished = self.sequences.clone()
        self.finished_scores = torch.full(shape, UNREACHABLE, device=device)
        self.is_finished = torch.zeros(shape, dtype=torch.bool, device=device)
        self.may_improve = torch.ones(num_questions, dtype=torch.bool, device=device)

    def keep(self, questions: Tensor) -> None:
        """Forget all questions but these."""
        for name in ("sequences", "scores", "finished", "finished_scores", "is_finished", "may_improve"):
            setattr(self, name, getattr(self, name)[questions])

    def extend(
        self,
        log_probabilities: Float[Tensor, "question width vocabulary"],
        length: int,
        end_token: int,
        length_penalty: float,
    ) -> tuple[Int[Tensor, "question beam"], Bool[Tensor, " question"]]:
        """Add one token to every running hypothesis.

        Returns:
            The beam each new running hypothesis came from, and whether every candidate of a question ended, so that
            none is left to run.
        """
        scores, parents, tokens = self._candidates(log_probabilities)
        sequences = _gather(self.sequences, parents)
        sequences[:, :, length] = tokens
        ended = tokens == end_token
        if length + 1 >= self.max_length:
            ended = torch.ones_like(ended)

        # The tokens without the start token: in transformers, too, only generated ones count here.
        new_scores = scores / float(length) ** length_penalty
        # Only candidates among the best num_beams may finish; the rest exist so that num_beams remain to run.
        finishes = ended & (torch.arange(ended.shape[1], device=ended.device) < self.num_beams)
        new_scores = new_scores + (~finishes) * UNREACHABLE
        merged_scores = torch.cat([self.finished_scores, new_scores], dim=1)
        self.finished_scores, chosen = merged_scores.topk(self.num_beams, dim=1)
        self.finished = _gather(torch.cat([self.finished, sequences], dim=1), chosen)
        self.is_finished = _gather(torch.cat([self.is_finished, finishes], dim=1), chosen)

        self.scores, best = (scores + ended * UNREACHABLE).topk(self.num_beams, dim=1)
        self.sequences = _gather(sequences, best)
        # In the first step the decoder runs one row per question, which all beams come from.
        return _gather(parents, best).clamp(max=log_probabilities.shape[1] - 1), ended.all(1)

    def _candidates(self, log_probabilities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return score, parent beam and token of the best 2 * num_beams continuations of every question.

        The best of each beam are found first, so that the sort over beams sees a few numbers instead of the whole
        vocabulary; no continuation outside a beam's own best can be among the question's best.
        """
        log_probabilities = log_probabilities.expand(-1, self.num_beams, -1)
        wanted = 2 * self.num_beams
        per_beam, tokens = log_probabilities.topk(min(wanted, log_probabilities.shape[-1]), dim=-1)
        totals = (per_beam + self.scores[:, :, None]).flatten(1)  # (question, beam * candidate)
        scores, chosen = totals.topk(wanted, dim=1)
        return scores, chosen // per_beam.shape[-1], tokens.flatten(1).gather(1, chosen)

    def cannot_improve(
        self, length: int, length_penalty: float, early_stopping: EarlyStopping
    ) -> Bool[Tensor, " question"]:
        """Tell which questions have no running hypothesis that may still beat their finished ones."""
        possible_length = self.max_length if early_stopping == "never" and length_penalty > 0.0 else length
        best_running = self.scores[:, :1] / float(possible_length - 1) ** length_penalty
        worst_finished = torch.where(self.is_finished, self.finished_scores.amin(1, keepdim=True), UNREACHABLE)
        self.may_improve = self.may_improve & (best_running > worst_finished).any(1)
        stopped = ~self.may_improve
        return stopped | self.is_finished.all(1) if early_stopping is True else stopped


def _gather(values: Tensor, index: Tensor) -> Tensor:
    """Pick entries along the beam axis, whatever follows it."""
    index = index.reshape(*index.shape, *(1,) * (values.ndim - 2))
    return torch.take_along_dim(values, index, dim=1)
