"""The arguments of the ablation command: a table, a preset, seeds, overrides."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from qaclims_ray.commands.arguments import absolute_out, with_absolute_paths
from qaclims_ray.errors import ConfigError
from qaclims_ray.presets.option import first_line
from qaclims_ray.presets.table import PRESETS, preset
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.stages.ablate import Ablation
from qaclims_ray.systems.ablations import TABLES, ablation_table

FIXED = {"systems": "the table names its systems", "variants": "the table names its systems", "seed": "give --seeds"}
"""Settings of a run that the command decides itself, and why."""


@dataclass(frozen=True)
class AblateArguments:
    """An ablation's output folder, its repetitions, and every setting of the preset."""

    out: str
    """Output folder: a path or an fsspec URI (s3://, gs://); the table, and one run folder per seed."""
    config: Annotated[RunConfig, tyro.conf.arg(name="")]
    """Settings of the preset; each can be overridden."""
    seeds: tuple[int, ...] = (20, 21, 22)
    """Seeds of the repetitions; no setting of the miniature was chosen on these three."""
    concurrent: int | None = None
    """Trials at once; None takes as many as the cluster's CPUs and GPUs hold now."""
    data_root: str = ""
    """Folder of the data set; short for --data.root."""


def parse_ablation(argv: Sequence[str], *, prog: str) -> Ablation:
    """Read ``TABLE PRESET --out DIR [--seeds N ...] [--concurrent N] [--data-root DIR] [overrides]``.

    Raises:
        ConfigError: for an unknown table or preset, or a setting that cannot be used.
    """
    names = [argument for argument in argv[:2] if not argument.startswith("-")]
    if len(names) < 2 and (not argv or {"-h", "--help"} & set(argv)):
        _print_tables(prog)
        sys.exit(0)
    if not names:
        raise ConfigError(f"name a table and a preset; tables: {', '.join(TABLES)}")
    table = ablation_table(names[0])
    if len(names) < 2:
        raise ConfigError(f"name a preset after the table: {', '.join(PRESETS)}")
    default = preset(names[1])
    arguments = tyro.cli(
        AblateArguments,
        args=list(argv[2:]),
        prog=f"{prog} {' '.join(names)}",
        description=f"{table.paper}: {table.title}. Every row and seed is a trial; the same command again goes on.",
        default=AblateArguments(out=tyro.MISSING, config=default),
        config=(tyro.conf.FlagConversionOff,),
    )
    config = arguments.config
    for name, reason in FIXED.items():
        if getattr(config, name) != getattr(default, name) and name != "variants":
            raise ConfigError(f"--{name} has no meaning here: {reason}")
    if arguments.data_root:
        config = with_overrides(config, {"data.root": arguments.data_root})
    return Ablation(
        table=table,
        preset=names[1],
        config=with_absolute_paths(config),
        out=absolute_out(arguments.out),
        seeds=arguments.seeds,
        concurrent=arguments.concurrent,
    )


def _print_tables(prog: str) -> None:
    print(f"usage: {prog} TABLE PRESET --out DIR [--seeds N ...] [--concurrent N] [--data-root DIR] [settings]\n")
    print("Run a table of either paper and write it with our column beside it.\n\ntables:")
    for name, table in TABLES.items():
        print(f"  {name:<18} {table.title}: {' | '.join(row.label for row in table.rows)}")
    print("\npresets:")
    for name, build in PRESETS.items():
        print(f"  {name:<18} {first_line(build.about)}")
    print(f"\n`{prog} TABLE PRESET --help` lists the settings of a preset and their values.")
