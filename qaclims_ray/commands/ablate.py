"""The line of the ablation command: a table, a preset with options, seeds, settings."""

from dataclasses import dataclass, replace

from qaclims_ray.commands.arguments import RunArguments, parse_settings, preset_help, take_preset
from qaclims_ray.commands.line import Line
from qaclims_ray.errors import ConfigError
from qaclims_ray.presets.table import PRESETS
from qaclims_ray.stages.requests import Ablation
from qaclims_ray.systems.ablations import TABLES, ablation_table

_DECIDED = {"systems": "the table names its systems", "variants": "the table names its systems", "seed": "give --seeds"}
"""Settings of a run that the command decides itself, and why."""


@dataclass(frozen=True, kw_only=True)
class AblateArguments(RunArguments):  # inherits because one parser reads the fields that all presets share
    """An ablation's output folder (the table, and one run folder per seed), its repetitions, and every setting."""

    seeds: tuple[int, ...] = (20, 21, 22)
    """Seeds of the repetitions; no setting of the miniature was chosen on these three."""
    concurrent: int | None = None
    """Trials at once; None takes as many as the cluster's CPUs and GPUs hold now."""


def parse_ablation(line: Line) -> Ablation:
    """Read ``TABLE PRESET OPTIONS... --out DIR [--seeds N ...] [--concurrent N] [--data-root DIR] [settings]``.

    Raises:
        ConfigError: for an unknown table or preset, or a setting that cannot be used.
        SystemExit: once the help is printed.
    """
    names = [argument for argument in line.arguments[:1] if not argument.startswith("-")]
    words, rest = take_preset(replace(line, arguments=line.arguments[len(names) :]))
    if not (names and words) and (not line.arguments or line.asks_help()):
        _print_tables(line.prog)
        raise SystemExit(0)
    if not names:
        raise ConfigError(f"name a table and a preset; tables: {', '.join(TABLES)}")
    table = ablation_table(names[0])
    if not words:
        raise ConfigError(f"name a preset after the table: {', '.join(PRESETS)}")
    about = f"{table.paper}: {table.title}. Every row and seed is a trial; the same command again goes on."
    own = replace(line, prog=f"{line.prog} {table.name}", about=about)
    arguments = parse_settings(own, AblateArguments, words, rest, _DECIDED)
    return Ablation(
        table=table,
        preset=" ".join(words),
        config=arguments.config,
        out=arguments.out,
        seeds=arguments.seeds,
        concurrent=arguments.concurrent,
    )


def _print_tables(prog: str) -> None:
    print(
        f"usage: {prog} TABLE PRESET OPTIONS... --out DIR [--seeds N ...] [--concurrent N] [--data-root DIR] ", end=""
    )
    print("[settings]\n\nRun a table of either paper and write it with our column beside it.\n\ntables:")
    for name, table in TABLES.items():
        print(f"  {name:<18} {table.title}: {' | '.join(row.label for row in table.rows)}")
    print(f"\n{preset_help()}\n\n`{prog} TABLE PRESET OPTIONS... --help` lists the settings and their values.")
