"""The papers' ablation tables as data: which systems, with which settings, and the figure printed beside each.

All published figures are seed mIoU in percent on the train split of PASCAL VOC 2012, each at a threshold that was
chosen with pixel labels.
"""

from dataclasses import dataclass, field
from typing import Any

from qaclims_ray.errors import ConfigError
from qaclims_ray.run_config import RunConfig, Variant, with_overrides

_SEED_MIOU = "seed mIoU, %, VOC 2012 train"


@dataclass(frozen=True, kw_only=True)
class AblationRow:
    """One row of a table."""

    label: str
    """Name in the table."""
    system: str
    """The known system that is trained."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Settings on top of that system's, by dotted name."""
    published: float | None = None
    """The paper's figure; None where it prints none."""

    @property
    def name(self) -> str:
        """Name of the row's system in a run: the known one's own where nothing is set, so that tables share it."""
        parts = [self.system, *(f"{path.rsplit('.')[-1]}_{value}" for path, value in self.overrides.items())]
        return "-".join(parts)


@dataclass(frozen=True, kw_only=True)
class AblationTable:
    """One table of a paper."""

    name: str
    """Name on the command line."""
    paper: str
    """QA-CLIMS or SemPLeS, and where in the paper."""
    title: str
    """What is varied."""
    what: str = _SEED_MIOU
    """What the published figures are."""
    note: str = ""
    """What a reader must know to compare."""
    rows: tuple[AblationRow, ...]
    """In the paper's order; differences are taken to the first."""


def _sweep(system: str, path: str, symbol: str, published: dict[float, float | None]) -> tuple[AblationRow, ...]:
    return tuple(
        AblationRow(label=f"{symbol} = {value:g}", system=system, overrides={path: value}, published=figure)
        for value, figure in published.items()
    )


_TABLES = (
    AblationTable(
        name="qa_clims_table4",
        paper="QA-CLIMS, Table 4",
        title="Loss functions",
        rows=(
            AblationRow(label="FRC", system="frc_only", published=60.3),
            AblationRow(label="BRC", system="brc_only", published=57.7),
            AblationRow(label="FRC + BRC", system="frc_brc", published=67.1),
            AblationRow(label="FRC + BRC + REG", system="qa_clims", published=67.3),
        ),
    ),
    AblationTable(
        name="qa_clims_table5",
        paper="QA-CLIMS, Table 5",
        title="Groups of answers",
        rows=(
            AblationRow(label="class name only (RITC)", system="ritc_class_names", published=60.2),
            AblationRow(label="+ fine-grained", system="fine_grained", published=61.0),
            AblationRow(label="+ alias", system="alias", published=60.7),
            AblationRow(label="+ objects", system="objects", published=66.3),
            AblationRow(label="+ scene", system="scene", published=64.5),
            AblationRow(label="+ fine-grained, alias", system="fine_grained_alias", published=61.2),
            AblationRow(label="+ fine-grained, alias, objects", system="fine_grained_alias_objects", published=67.0),
            AblationRow(label="+ all four", system="qa_clims", published=67.3),
        ),
    ),
    AblationTable(
        name="qa_clims_fat",
        paper="QA-CLIMS, section 4.3",
        title="Foreground adaptive thresholding (FAT)",
        rows=(
            AblationRow(label="FAT off", system="no_fat", published=66.9),
            AblationRow(label="FAT on", system="qa_clims", published=67.3),
        ),
    ),
    AblationTable(
        name="qa_clims_fig5",
        paper="QA-CLIMS, Fig. 5",
        title="Filter ratio omega (Eq. 9)",
        note="The paper plots this curve; its text gives one figure, the highest, at 0.1. The other ratios are ours.",
        rows=_sweep(
            "qa_clims", "ritc.omega", "omega", {0.02: None, 0.05: None, 0.1: 67.3, 0.2: None, 0.3: None, 0.5: None}
        ),
    ),
    AblationTable(
        name="semples_table4",
        paper="SemPLeS, Table 4",
        title="Loss components",
        note="The published mask generator is WeakTr.",
        rows=(
            AblationRow(label="matching", system="semples_match", published=67.6),
            AblationRow(
                label="matching, refinement by random prompts", system="semples_random_prompts", published=67.6
            ),
            AblationRow(label="prompts learned by L_T", system="semples_text_only", published=67.7),
            AblationRow(label="prompts learned by L_I", system="semples_image_only", published=67.9),
            AblationRow(label="prompts learned by L_T and L_I", system="semples", published=68.7),
        ),
    ),
    AblationTable(
        name="semples_table5",
        paper="SemPLeS, Table 5",
        title="Weight lambda of the refinement (Eq. 3)",
        note="The published mask generator is WeakTr. At 0 the refinement phase goes on matching.",
        rows=_sweep(
            "semples",
            "semples.refine_weight",
            "lambda",
            {0.0: 67.6, 0.01: 68.3, 0.02: 68.4, 0.05: 68.7, 0.1: 67.8},
        ),
    ),
    AblationTable(
        name="semples_table6",
        paper="SemPLeS, Table 6",
        title="Learning schemes",
        note="The published mask generator is WeakTr.",
        rows=(
            AblationRow(label="joint", system="semples_joint", published=65.9),
            AblationRow(label="sequential, 1 round", system="semples", published=68.7),
            AblationRow(label="alternating, 2 rounds", system="semples_2_rounds", published=68.5),
            AblationRow(label="alternating, 3 rounds", system="semples_3_rounds", published=68.4),
        ),
    ),
)

TABLES: dict[str, AblationTable] = {table.name: table for table in _TABLES}
"""All tables by name."""


def ablation_table(name: str) -> AblationTable:
    """Return a table by name.

    Raises:
        ConfigError: for a name that is not in `TABLES`.
    """
    if name not in TABLES:
        raise ConfigError(f"there is no table {name!r}; known: {', '.join(TABLES)}")
    return TABLES[name]


def with_rows(config: RunConfig, rows: tuple[AblationRow, ...]) -> RunConfig:
    """Return a run that trains the systems of a table's rows and no others."""
    variants = [Variant(name=row.name, system=row.system, overrides=row.overrides) for row in rows if row.overrides]
    return with_overrides(
        config,
        {"systems": [row.name for row in rows], "variants": [vars(variant) for variant in variants]},
    )
