"""Everything the miniature world can name: classes, stuffs, props, looks, scenes, and the words of its tokenizers.

The world copies what makes weak supervision hard: every class has a primary stuff it is usually seen with, a few
secondary stuffs, and two kinds of props that often stand beside it. All tables are indexed by `class_id` (0-based
foreground). Stuff identifiers run over `STUFF`: primary stuffs first, so that `STUFF[class_id]` is a class's own
primary stuff, then secondary stuffs, then props.
"""

CLASSES: tuple[str, ...] = ("aeroplane", "bird", "boat", "bus", "dog", "horse", "sheep", "train")
"""Foreground classes."""

ALIASES: tuple[str, ...] = ("plane", "fowl", "ship", "coach", "hound", "pony", "lamb", "locomotive")
"""Another name for each class."""

PRIMARY_STUFF: tuple[str, ...] = ("sky", "tree", "water", "road", "carpet", "sand", "grass", "track")
"""The stuff each class usually stands in or on."""

SECONDARY_STUFF: tuple[str, ...] = ("concrete", "field", "hill", "brick", "wall", "rock", "fog", "platform")
"""Stuffs of the other zone of a picture."""

PROPS: tuple[str, ...] = ("bush", "fence", "lamp", "barrel", "sign", "cone", "bench", "flag")
"""Small unlabelled things beside an object."""

ZONE_STUFF: tuple[str, ...] = PRIMARY_STUFF + SECONDARY_STUFF
"""Stuffs that fill a zone of a picture."""

STUFF: tuple[str, ...] = ZONE_STUFF + PROPS
"""Everything that is background; the position is the stuff identifier."""

NUM_CLASSES = len(CLASSES)
NUM_ZONE_STUFF = len(ZONE_STUFF)
NUM_STUFF = len(STUFF)

STUFF_SYNONYMS: dict[str, tuple[str, ...]] = {
    "water": ("river", "sea", "lake"),
    "track": ("railway", "railroad"),
    "rock": ("stone",),
    "carpet": ("rug",),
    "grass": ("lawn",),
    "road": ("street",),
    "tree": ("woods",),
}
"""Other words for some stuffs; only captions use them."""

SCENES: tuple[str, ...] = ("airport", "forest", "harbor", "city", "room", "desert", "pasture", "station")
"""Name of the place that a primary or secondary stuff belongs to (index: stuff identifier modulo 8)."""

COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.78, 0.20, 0.20),
    "blue": (0.22, 0.30, 0.75),
    "yellow": (0.85, 0.75, 0.25),
    "white": (0.88, 0.88, 0.88),
    "black": (0.18, 0.18, 0.20),
    "purple": (0.55, 0.25, 0.62),
}
"""Body colours (RGB in 0..1), shared by all classes so that colour does not give the class away."""

PATTERNS: tuple[str, ...] = ("plain", "striped")
"""Body patterns."""

UPPER_ZONE_CLASSES: frozenset[int] = frozenset({0, 1})
"""Classes whose own zone is the upper one (aeroplane, bird)."""

SECONDARY_OFFSETS: tuple[int, ...] = (0, 1, 3)
"""A class's secondary stuffs are SECONDARY_STUFF[(class_id + offset) % 8]."""

PROP_OFFSETS: tuple[int, ...] = (0, 2)
"""A class's frequent props are PROPS[(class_id + offset) % 8]."""

CAPTION_PLACES: tuple[str, ...] = ("on", "in", "and", "in front of", "near", "beside")
"""Words that join an object and a stuff in a caption."""

_GLUE_WORDS = "a photo of no on and in front with near beside the"
_QUESTION_WORDS = (
    "what is above the under behind around next to left side of right scene environment place in "
    "kind type photo this also called usually another word for name"
)
PUNCTUATION: tuple[str, ...] = (",", ".", "?")
"""Marks the tokenizers split off as words."""


def world_words() -> tuple[str, ...]:
    """Return every word of the world (lower case, sorted, with punctuation), about a hundred.

    Captions, the answers and the 16 question templates use no other word; both tokenizers are built from this list.
    """
    synonyms = [word for words in STUFF_SYNONYMS.values() for word in words]
    named = [*CLASSES, *ALIASES, *STUFF, *synonyms, *SCENES, *COLORS, *PATTERNS]
    return tuple(sorted({*named, *PUNCTUATION, *_GLUE_WORDS.split(), *_QUESTION_WORDS.split()}))
