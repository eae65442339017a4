"""Greedy and beam search over many questions at once.

The results are those of transformers' ``generate`` run for each question alone (``GenerationMixin._beam_search`` and
greedy ``_sample``): the same finished-hypothesis bookkeeping, the same early stopping rule, the same lengths, which
count the start token.

A step is a function of tensors (``step``), and what a decoder keeps of earlier tokens never moves: a hypothesis knows
which entries are its own. On a CPU a question that has finished is dropped from the batch, so that a long answer does
not keep the short ones computing. On a GPU that would cost a wait each step, so all shapes stay the same there, which
lets a step be one CUDA graph; now and then the host looks whether any question is left.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

EarlyStopping = bool | Literal["never"]

UNREACHABLE = -1.0e9
"""Score of a hypothesis that must not be chosen (the value transformers uses, so ties fall the same way)."""

STEPS_PER_CHECK = 3
"""With static shapes: so many steps are launched before the host waits to see whether any question is left."""


@runtime_checkable
class TokenScorer(Protocol):
    """Scores the next token of hypotheses: a function of tensors that remembers nothing."""

    def __call__(
        self,
        tokens: Int[Tensor, "question beam"],
        position: Int[Tensor, ""],
        past: Shaped[Tensor, "question slot *entry"] | None,
        is_own: Bool[Tensor, "question beam slot"] | None,
        context: tuple[Tensor, ...],
    ) -> tuple[Float[Tensor, "question beam vocabulary"], Shaped[Tensor, "question beam *entry"]]:
        """Return the scores (logits) of the next token, and what to keep of this one.

        Args:
            tokens: Last token of every hypothesis.
            position: Its place, 0 for the start token.
            past: What was kept of earlier tokens; None at the start.
            is_own: Which of it belongs to a hypothesis.
            context: What the answer depends on, the question first in each tensor.
        """
        ...


@dataclass(frozen=True)
class Rules:
    """How to search."""

    num_beams: int
    """Running hypotheses per question; 1 is greedy: the most likely token at every step."""
    max_length: int
    """Longest answer in tokens, start token included; an answer that reaches it counts as finished."""
    min_length: int
    """The end token is forbidden while an answer, start token included, is shorter than this."""
    start_token: int
    """First token of every answer."""
    end_token: int
    """Ends an answer."""
    pad_token: int
    """Fills the places after the end token."""
    length_penalty: float = 1.0
    """Beams: a finished score is the summed log-probability divided by (new tokens) ** length_penalty."""
    early_stopping: EarlyStopping = False
    """Beams, as in transformers: False stops once no running answer beats the worst finished one at its present length,
    True as soon as ``num_beams`` are finished, "never" compares at the longest length."""


class Hypotheses(NamedTuple):
    """Running and finished hypotheses of some questions, best first along the beam axis."""

    length: Int[Tensor, ""]
    """Tokens of a running hypothesis, start token included."""
    sequences: Int[Tensor, "question beam length"]
    """Running hypotheses, padded."""
    beams: Int[Tensor, "question beam length"]
    """At which beam each of their tokens was scored: there lies what the decoder kept of it; -1 where it was not."""
    scores: Float[Tensor, "question beam"]
    """Their summed log-probabilities."""
    finished: Int[Tensor, "question beam length"]
    """Finished hypotheses, padded."""
    finished_scores: Float[Tensor, "question beam"]
    """Their scores; ``UNREACHABLE`` where there is none."""
    is_finished: Bool[Tensor, "question beam"]
    """Where there is one."""
    may_improve: Bool[Tensor, " question"]
    """Whether a running hypothesis could so far beat a finished one."""
    answers: Int[Tensor, "question length"]
    """The answer of every question, as far as it is known."""
    is_done: Bool[Tensor, " question"]
    """Whether it is final."""

    def keep(self, questions: Int[Tensor, " kept"]) -> "Hypotheses":
        """Forget all questions but these."""
        return Hypotheses(self.length, *(values[questions] for values in self[1:]))


_NUM_FIELDS = len(Hypotheses._fields)

Advance = Callable[..., tuple[Tensor, ...]]
"""``step`` with its decoder, or a recording of it."""


def search(
    advance: Advance,
    context: tuple[Tensor, ...],
    rules: Rules,
    *,
    num_questions: int,
    device: torch.device | str,
    has_static_shapes: bool,
) -> Int[Tensor, "question length"]:
    """Find the best answer of every question.

    Args:
        advance: ``step`` of a decoder.
        context: What the decoder needs to know of the questions, the question first in each tensor.
        rules: How to search.
        num_questions: Number of questions.
        device: Where the decoder works.
        has_static_shapes: Whether all questions stay to the end, so that all steps but the first have the same shapes
            and the host waits every ``STEPS_PER_CHECK`` steps; does not change the answers.

    Returns:
        The answers, start token included, padded to ``max_length``.
    """
    state = _start(rules, num_questions, device)
    answers, asked = state.answers.clone(), torch.arange(num_questions, device=device)
    past, slots = None, 0
    for length in range(1, rules.max_length):
        *hypotheses, kept = advance(rules, past, *state, *context)
        state = Hypotheses(*hypotheses)
        if length + 1 == rules.max_length:
            break
        if has_static_shapes:
            if length % STEPS_PER_CHECK == 0 and not bool((~state.is_done).any()):
                break
            if past is None:
                past = kept.new_zeros(len(kept), 1 + rules.num_beams * (rules.max_length - 3), *kept.shape[2:])
            past[:, slots : slots + kept.shape[1]] = kept
            slots += kept.shape[1]
            continue
        running = (~state.is_done).nonzero()[:, 0]
        if len(running) == 0:
            break
        past = kept if past is None else torch.cat([past, kept], dim=1)
        if len(running) < len(asked):
            answers[asked] = state.answers
            asked, past = asked[running], past[running]
            state, context = state.keep(running), tuple(values[running] for values in context)
    answers[asked] = state.answers
    return answers


def _start(rules: Rules, num_questions: int, device: torch.device | str) -> Hypotheses:
    shape = (num_questions, rules.num_beams)
    sequences = torch.full((*shape, rules.max_length), rules.pad_token, dtype=torch.long, device=device)
    sequences[:, :, 0] = rules.start_token
    scores = torch.full(shape, UNREACHABLE, device=device)
    finished_scores = scores.clone()
    # At first all beams of a question are the same; all but one have to lose, or its copies would fill the beams.
    scores[:, 0] = 0.0
    return Hypotheses(
        length=torch.ones((), dtype=torch.long, device=device),
        sequences=sequences,
        beams=torch.full_like(sequences, -1),
        scores=scores,
        finished=sequences.clone(),
        finished_scores=finished_scores,
        is_finished=torch.zeros(shape, dtype=torch.bool, device=device),
        may_improve=torch.ones(num_questions, dtype=torch.bool, device=device),
        answers=sequences[:, 0].clone(),
        is_done=torch.zeros(num_questions, dtype=torch.bool, device=device),
    )


def step(
    decoder: TokenScorer,
    rules: Rules,
    past: Shaped[Tensor, "question slot *entry"] | None,
    *tensors: Tensor,
) -> tuple[Tensor, ...]:
    """Add a token to every running hypothesis: a function from tensors to tensors, without anything the host reads.

    Args:
        decoder: Scores the next tokens.
        rules: How to search.
        past: What the decoder kept of earlier tokens: a slot for the start token, then one per position and beam,
            positions outermost; None at the start. Slots of positions still to come may be there.
        *tensors: The ``Hypotheses``, then the decoder's context.

    Returns:
        The ``Hypotheses``, and what the decoder keeps of the tokens it has seen now (question, beam, *entry).
    """
    state, context = Hypotheses(*tensors[:_NUM_FIELDS]), tensors[_NUM_FIELDS:]
    position = state.length - 1
    is_own = None
    if past is None:
        # Until the first step is done all beams of a question are one and the same: the decoder runs only one.
        tokens = state.sequences[:, :1, 0]
    else:
        tokens = state.sequences.index_select(2, position[None])[:, :, 0]
        is_own = state.beams[..., None] == torch.arange(rules.num_beams, device=position.device)
        is_own = is_own.flatten(2)[:, :, rules.num_beams - 1 :][:, :, : past.shape[1]]
    logits, kept = decoder(tokens, position, past, is_own, context)
    extend = _extend_greedily if rules.num_beams == 1 else _extend_beams
    return *extend(state, logits.float(), rules), kept


def _extend_greedily(state: Hypotheses, logits: Tensor, rules: Rules) -> Hypotheses:
    tokens = _without_early_end(logits, state.length, rules).argmax(-1)
    parents = torch.zeros_like(tokens)
    state = _appended(state, parents, tokens)
    answers = torch.where(state.is_done[:, None], state.answers, state.sequences[:, 0])
    return state._replace(answers=answers, is_done=state.is_done | (tokens[:, 0] == rules.end_token))


def _extend_beams(state: Hypotheses, logits: Tensor, rules: Rules) -> Hypotheses:
    length = state.length
    log_probabilities = _without_early_end(torch.log_softmax(logits, dim=-1), length, rules)
    scores, parents, tokens = _candidates(log_probabilities, state.scores, rules.num_beams)
    width = logits.shape[1]  # 1 at the start: that hypothesis counts as the last beam, whose slot is the first
    longer = _appended(state, parents.clamp(max=width - 1) + (rules.num_beams - width), tokens)
    ended = (tokens == rules.end_token) | (length + 1 >= rules.max_length)

    # The tokens without the start token: in transformers, too, only generated ones count here.
    new_scores = scores / _penalty(length, rules)
    # Only candidates among the best num_beams may finish; the rest exist so that num_beams remain to run.
    finishes = ended & (torch.arange(ended.shape[1], device=ended.device) < rules.num_beams)
    new_scores = new_scores + (~finishes) * UNREACHABLE
    finished_scores, chosen = torch.cat([state.finished_scores, new_scores], dim=1).topk(rules.num_beams, dim=1)
    finished = _gather(torch.cat([state.finished, longer.sequences], dim=1), chosen)
    is_finished = torch.cat([state.is_finished, finishes], dim=1).gather(1, chosen)

    scores, best = (scores + ended * UNREACHABLE).topk(rules.num_beams, dim=1)
    running = longer._replace(
        sequences=_gather(longer.sequences, best),
        beams=_gather(longer.beams, best),
        scores=scores,
        finished=finished,
        finished_scores=finished_scores,
        is_finished=is_finished,
        answers=torch.where(state.is_done[:, None], state.answers, finished[:, 0]),
    )
    may_improve = state.may_improve & _can_improve(running, rules)
    is_done = state.is_done | ended.all(1) | ~may_improve
    if rules.early_stopping is True:
        is_done = is_done | is_finished.all(1)
    return running._replace(may_improve=may_improve, is_done=is_done)


def _without_early_end(scores: Tensor, length: Tensor, rules: Rules) -> Tensor:
    if rules.min_length > 1:
        scores[:, :, rules.end_token].masked_fill_(length < rules.min_length, -torch.inf)
    return scores


def _appended(state: Hypotheses, parents: Tensor, tokens: Tensor) -> Hypotheses:
    """Return running hypotheses (question, candidate) that go on from others by a token."""
    places = torch.arange(state.sequences.shape[2], device=tokens.device)
    sequences = torch.where(places == state.length, tokens[:, :, None], _gather(state.sequences, parents))
    beams = torch.where(places == state.length - 1, parents[:, :, None], _gather(state.beams, parents))
    return state._replace(length=state.length + 1, sequences=sequences, beams=beams)


def _candidates(log_probabilities: Tensor, scores: Tensor, num_beams: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return score, parent beam and token of the best 2 * num_beams continuations of every question.

    The best of each beam are found first, so that the sort over beams sees a few numbers instead of the whole
    vocabulary; no continuation outside a beam's own best can be among the question's best.
    """
    log_probabilities = log_probabilities.expand(-1, num_beams, -1)
    wanted = 2 * num_beams
    per_beam, tokens = log_probabilities.topk(min(wanted, log_probabilities.shape[-1]), dim=-1)
    totals = (per_beam + scores[:, :, None]).flatten(1)  # (question, beam * candidate)
    best, chosen = totals.topk(wanted, dim=1)
    return best, chosen // per_beam.shape[-1], tokens.flatten(1).gather(1, chosen)


def _can_improve(state: Hypotheses, rules: Rules) -> Bool[Tensor, " question"]:
    """Tell which questions have a running hypothesis that may still beat a finished one."""
    at_longest = rules.early_stopping == "never" and rules.length_penalty > 0.0
    length = torch.full_like(state.length, rules.max_length) if at_longest else state.length
    best_running = state.scores[:, :1] / _penalty(length - 1, rules)
    worst_finished = torch.where(state.is_finished, state.finished_scores.amin(1, keepdim=True), UNREACHABLE)
    return (best_running > worst_finished).any(1)


def _penalty(new_tokens: Tensor, rules: Rules) -> Tensor:
    """Return what a score of so many tokens is divided by: in double precision, as Python computes it."""
    return (new_tokens.double() ** rules.length_penalty).float()


def _gather(values: Tensor, index: Tensor) -> Tensor:
    """Pick hypotheses (question, beam, length) of the same question."""
    return values.gather(1, index[:, :, None].expand(-1, -1, values.shape[2]))
