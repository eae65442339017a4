"""Settings of the texts that pairs are contrasted with.

Letters and numbers such as "R12" name rows of ``docs/method.md``, where papers and released code are compared.
"""

from typing import Literal

from qaclims_ray.models.precision import Arithmetic, Precision
from qaclims_ray.settings import require, require_at_least, settings

TextGroup = Literal["fine_grained", "alias", "objects", "scene"]
BackgroundFilter = Literal["synonyms", "other_labels", "containing", "empty"]
SHARED_KEY = "*"
"""Name under which `TextConfig.fixed_background` holds the texts of all classes."""
ALL_TEXT_GROUPS: tuple[TextGroup, ...] = ("fine_grained", "alias", "objects", "scene")


@settings
class TextConfig:
    """From answers to the texts a pair is contrasted with (rows Q4-Q11, Q14; QA-CLIMS Table 5)."""

    source: Literal["qape", "class_names", "fixed"] = "qape"
    """qape: the corpus; class_names: the class against "no {class}" (Table 5, row 1); fixed: one list for all."""
    groups: tuple[TextGroup, ...] = ALL_TEXT_GROUPS
    """Answer groups in use (Table 5)."""
    fixed_background: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """For `source = fixed`: pairs (class name or "*", background texts)."""
    shuffle_answers: bool = False
    """Control: give each pair the answers of another image of the same class."""
    foreground_mix: Literal["half", "uniform"] = "half"
    """Weights of the mean foreground text: half on the class name (official) or 1/(L+1) each (paper) (Q6)."""
    renormalise_foreground: bool = False
    """Bring the mixed foreground text back to unit length: False official, True paper (Q7)."""
    suffix_rule: Literal["substring", "word"] = "substring"
    """When an answer counts as naming the class already: anywhere (official) or as a whole word (Q5)."""
    class_synonyms: tuple[tuple[str, str], ...] = (
        ("dining table", "table"),
        ("tv monitor", "monitor"),
        ("potted plant", "plant"),
    )
    """Pairs (class, short form) that also count as naming the class (Q5)."""
    background_filters: tuple[BackgroundFilter, ...] = ()
    """Background answers that fall out besides those equal to the class (Q9): its synonyms, other labels of the
    image, answers containing such a name as a word instead of being equal to it, empty ones."""
    empty_background: Literal["skip", "no_class"] = "skip"
    """A pair without background text: skipped in both losses (official) or given "no {class}" (Q10)."""
    template: str = "a photo of {}."
    """Prompt template (Q11, S14)."""
    class_words: tuple[tuple[str, str], ...] = ()
    """Pairs (class name, words used for it in texts), e.g. (("person", "player"),) as in CLIMS and SemPLeS (C6)."""
    seed: int = 0
    """Seed of `shuffle_answers`."""
    precision: Precision = "auto"
    """Weights and arithmetic of CLIP where it encodes the texts: fp32, bf16, fp16; auto is fp32 everywhere."""

    @property
    def arithmetic(self) -> Arithmetic:
        """What `precision` stands for."""
        return "fp32" if self.precision == "auto" else self.precision

    def __post_init__(self) -> None:
        require(self.template.count("{}") == 1, f"text.template {self.template!r} must hold exactly one {{}}")
        require(
            self.source != "fixed" or bool(self.fixed_background), "text.source is fixed: give text.fixed_background"
        )
        require(len(set(self.groups)) == len(self.groups), "text.groups holds a group twice")
        require_at_least(self, "text", 0, "seed")
