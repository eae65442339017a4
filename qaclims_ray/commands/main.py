"""Entry points shared by the ``qaclims`` command and the jobs: parse, run, one line per mistake."""

import errno
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tyro
from rich.console import Console

from qaclims_ray.commands.ablate import parse_ablation
from qaclims_ray.commands.arguments import parse_run
from qaclims_ray.commands.tune import parse_search
from qaclims_ray.errors import QaclimsError
from qaclims_ray.report.ablation import failures
from qaclims_ray.report.comparison import print_comparison
from qaclims_ray.stages.ablate import run_ablation
from qaclims_ray.stages.compare import CompareArguments, run_compare
from qaclims_ray.stages.pipeline import run_pipeline
from qaclims_ray.stages.predict import PredictArguments, run_predict
from qaclims_ray.stages.prompts import PromptArguments, run_read_prompts
from qaclims_ray.stages.results_console import print_results
from qaclims_ray.stages.tune import run_search
from qaclims_ray.tracking.mlflow_tracker import replay

MISTAKE = 2
"""Exit code for a user's mistake."""
INCOMPLETE = 1
"""Exit code when some trials failed."""
PLACE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""What a disk or folder answers when it is full or may not be written."""
KEPT = "what is finished is kept, the same command goes on"


def run_main(argv: Sequence[str], *, prog: str, description: str, until: str = "run", default_preset: str = "") -> int:
    """Run the pipeline up to a stage; return the exit code."""

    def work() -> None:
        config, out = parse_run(argv, prog=prog, description=description, default_preset=default_preset)
        outcome = run_pipeline(config, out, until=until)
        if until in ("run", "report", "evaluate"):
            print_results(outcome, Console())

    return _guarded(prog, work)


def predict_main(argv: Sequence[str], prog: str = "qaclims predict") -> int:
    """Predict masks of any images with a trained run; return the exit code."""

    def work() -> None:
        run_predict(
            tyro.cli(
                PredictArguments,
                args=list(argv),
                prog=prog,
                description="Write masks and overlays of files, folders or buckets with a trained run.",
            )
        )

    return _guarded(prog, work)


def prompts_main(argv: Sequence[str], prog: str = "qaclims prompts") -> int:
    """Show the learned prompts of a trained run; return the exit code."""

    def work() -> None:
        arguments = tyro.cli(
            PromptArguments,
            args=list(argv),
            prog=prog,
            description="Show the nearest words of learned prompts, and their maps beside manual ones.",
        )
        run_read_prompts(arguments, Console())

    return _guarded(prog, work)


def compare_main(argv: Sequence[str], prog: str = "qaclims compare") -> int:
    """Compare finished runs, in settings and in results; return the exit code."""

    def work() -> None:
        arguments = tyro.cli(
            CompareArguments,
            args=list(argv),
            prog=prog,
            description="Show what differs between runs in settings and results, with paired bootstrap intervals.",
        )
        comparison, page = run_compare(arguments)
        console = Console()
        print_comparison(comparison, console)
        console.print(f"written  {page}", highlight=False, soft_wrap=True)

    return _guarded(prog, work)


def ablate_main(argv: Sequence[str], prog: str = "qaclims ablate") -> int:
    """Run a named table of a paper over seeds; return the exit code."""
    failed: list[str] = []

    def work() -> None:
        failed.extend(failures(run_ablation(parse_ablation(argv, prog=prog), Console())))

    code = _guarded(prog, work)
    if failed:
        print(f"{prog}: {len(failed)} trials failed; the same command tries them again", file=sys.stderr)
    return INCOMPLETE if failed else code


def tune_main(argv: Sequence[str], prog: str = "qaclims tune", *, default_preset: str = "") -> int:
    """Search settings of a system; return the exit code."""

    def work() -> None:
        run_search(parse_search(argv, prog=prog, default_preset=default_preset), Console())

    return _guarded(prog, work)


@dataclass(frozen=True)
class SyncArguments:
    """Where unsent tracking calls wait, and where they go."""

    spool: str
    """Folder that the warning named."""
    uri: str
    """Tracking server or store."""


def sync_main(argv: Sequence[str], prog: str = "qaclims sync") -> int:
    """Send tracking calls that are waiting in a spool; return the exit code."""

    def work() -> None:
        arguments = tyro.cli(SyncArguments, args=list(argv), prog=prog, description="Send what is waiting.")
        print(f"sent {replay(arguments.spool, arguments.uri)} calls to {arguments.uri}")

    return _guarded(prog, work)


def _guarded(prog: str, work: Callable[[], None]) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        work()
    except QaclimsError as error:
        print(f"{prog}: {type(error).__name__}: {error}", file=sys.stderr)
        return MISTAKE
    except OSError as error:
        # data/storage.py names its own; libraries and temporary folders meet the same disks.
        if error.errno not in PLACE_ERRORS:
            raise
        print(f"{prog}: ResourceError: {error}. Check the permissions and the free space; {KEPT}", file=sys.stderr)
        return MISTAKE
    except KeyboardInterrupt:
        print(f"{prog}: stopped; {KEPT}", file=sys.stderr)
        return 130
    return 0
