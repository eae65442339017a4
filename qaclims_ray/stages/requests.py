"""What verbs are asked to do: what a command line is read into, and what the stage that runs it takes.

Apart from these stages, which import all that they run: reading a line, and refusing it, takes none of it.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from qaclims_ray.data import artifacts, storage
from qaclims_ray.errors import ConfigError
from qaclims_ray.run_config import RunConfig, System, to_dict, with_overrides
from qaclims_ray.settings import Threshold
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.systems.ablations import AblationTable, with_rows
from qaclims_ray.systems.search import SearchConfig
from qaclims_ray.tracking.store import tracking_uri

WORDS_PER_CLASS = 8
"""Nearest words shown of a learned prompt."""


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """A paper's table to run over seeds."""

    table: AblationTable
    """The paper's table."""
    preset: str
    """Name of the preset the settings started from."""
    config: RunConfig
    """The preset with the user's settings; rows, and seeds, come on top."""
    out: str
    """Folder of the table and of one run folder per seed."""
    seeds: tuple[int, ...]
    """Seeds of the repetitions."""
    concurrent: int | None = None
    """Trials at once; None takes as many as the cluster holds."""

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"seeds are {self.seeds}, expected one or more different numbers of at least 0")
        if self.concurrent is not None and self.concurrent < 1:
            raise ConfigError(f"concurrent is {self.concurrent}, expected at least 1")
        if self.config.cluster.num_workers == 0 and self.config.cluster.use_gpu:
            raise ConfigError("cluster.num_workers 0 trains in a trial's own process, where no GPU is set aside: set 1")

    def folder(self, seed: int) -> str:
        """Return the run folder of a seed."""
        return storage.join(self.out, f"seed-{seed}")

    def run(self, seed: int, rows: tuple[System, ...]) -> RunConfig:
        """Return the run of a seed with some of the rows."""
        uri = tracking_uri(self.config.tracking, self.out) if self.config.tracking.enabled else ""
        places = {"seed": seed, "goal": "seed", "tracking.uri": uri, "tracking.enabled": bool(uri)}
        return with_overrides(with_rows(self.config, rows), places)


@dataclass(frozen=True, kw_only=True)
class Search:
    """What to search, and from which settings."""

    preset: str
    """Name of the preset the settings started from."""
    config: RunConfig
    """The preset with the user's settings."""
    search: SearchConfig
    """What is varied and how."""
    out: str
    """Run folder of all trials."""

    @property
    def folder(self) -> str:
        """Where results go."""
        return storage.join(self.out, "tune")

    @property
    def identity(self) -> str:
        """Names the search: with other settings it is another."""
        return artifacts.fingerprint_of([to_dict(self.config), to_dict(self.search)])


@dataclass(frozen=True)
class StartArguments:
    """A folder of photographs to begin with."""

    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Folder of the photographs and their tags."""
    out: str = ""
    """Output folder of the run; empty takes runs/NAME, by the folder's name. The run's settings are written beside it,
    as OUT.json."""
    dry_run: bool = False
    """Look, choose and write the settings, and do not run."""
    quick: bool = False
    """A first look: a quarter of the passes, masks by the CRF alone."""
    weights: Annotated[str, tyro.conf.arg(name="cam-net.weights", aliases=["--weights"])] = ""
    """File of ImageNet weights of a small network; empty takes those that are on this machine, and downloads none."""
    label_file: Annotated[str, tyro.conf.arg(name="data.label-file", aliases=["--label-file"])] = ""
    """File that says the tags, where it is not found by itself."""
    labels: Annotated[
        Literal["auto", "annotations", "file", "folders"], tyro.conf.arg(name="data.labels", aliases=["--labels"])
    ] = "auto"
    """Where the tags are, where several places say them."""


@dataclass(frozen=True)
class CompareArguments:
    """Which runs to compare."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")]
    """Output folders or URIs, each also as RUN:SYSTEM; the first is what the others are compared with."""
    out: str = ""
    """Folder for comparison.html and comparison.json; empty takes report/compare in the first run."""
    resamples: int = 2000
    """Resamples of the images behind each interval."""
    seed: int = 0
    """Seed of the resampling."""
    gallery: int = 500
    """Most images in the gallery of both runs, beside the page; 0 writes none."""

    def owned(self) -> tuple[str, ...]:
        """Return the folder that is written in: the given one, or the first run's, which nothing else may work in."""
        return (self.out,) if self.out else tuple(side_of(name)[0] for name in self.runs[:1])


@dataclass(frozen=True)
class RerunArguments:
    """Which run to repeat, and where to."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Output folder of a run."""
    out: str = ""
    """Folder of the repetition; empty takes the run's name with -again behind it. One that was stopped goes on."""

    @property
    def folder(self) -> str:
        """Where the repetition goes."""
        return self.out or f"{storage.absolute(self.run).rstrip('/')}-again"


@dataclass(frozen=True)
class FetchArguments:
    """What to bring, and where to."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME ...")] = ()
    """Names of weights and data sets, as --list shows them."""
    to: str = ""
    """Folder; empty takes the folder of weights (environment variable QACLIMS_WEIGHTS, else
    ~/.cache/qaclims_ray/weights), and for data sets ./data."""
    mirror: str = ""
    """Address of a mirror of your own that is asked first for each file by its name, e.g. http://server/weights."""
    list: bool = False
    """Show all names with sizes and licences, and what lies on this machine."""


def side_of(name: str) -> tuple[str, str]:
    """Part RUN:SYSTEM; a folder's own name may hold a colon, and every URI has one."""
    head, _, tail = name.rpartition(":")
    if not head or not tail or "/" in tail or storage.exists(RunLayout(storage.absolute(name)).config):
        return storage.absolute(name), ""
    return storage.absolute(head), tail


@dataclass(frozen=True)
class PredictArguments:
    """What to predict, with which run, and where to."""

    run: str
    """Output folder of a trained run; it may also be the first word, without --run."""
    images: tuple[str, ...]
    """Image files, folders or buckets."""
    out: str
    """Folder for masks/, overlays/ and predictions.json."""
    system: str = ""
    """System of the run; empty takes its last one."""
    labels: str = ""
    """CSV or JSON of image-level labels by file name; without it CAMs take the classifier's labels, and the final
    network finds the classes itself."""
    label_threshold: float = 0.5
    """Probability from which the classifier's label counts as present."""
    threshold: Threshold | None = None
    """Background score of CAMs; auto takes the one that the run chose without masks, None the one at which it scored
    its seeds."""
    network: Literal["auto", "final", "cam"] = "auto"
    """final: the run's final network; cam: CAMs at a threshold; auto: the final one where it is
    trained and no --threshold is given."""
    crf: bool = False
    """Refine what the final network says by its dense CRF."""
    submission: str = ""
    """Also write the masks as an archive for the VOC evaluation server, e.g. results.tgz."""


@dataclass(frozen=True)
class ExportNetworkArguments:
    """Which network to take away, in which forms, and where to."""

    run: str
    """Output folder of a trained run; it may also be the first word, without --run."""
    out: str
    """Folder for what is written."""
    to: tyro.conf.UseAppendAction[tuple[Literal["onnx", "hub"], ...]] = ()
    """onnx: network.onnx, and predict.py that runs it; hub: a folder for a model hub, which qaclims_ray.load reads.
    Once for each; without it both (of CAMs ONNX alone)."""
    system: str = ""
    """System of the run; empty takes its last one."""
    network: Literal["auto", "final", "cam"] = "auto"
    """final: the run's final network; cam: CAMs at a threshold, with the classifier that tells the classes; auto: the
    final one where it is trained and no --threshold is given."""
    size: tuple[int, int] | None = None
    """Height and width that the network is given inside the ONNX file; None: each image's own (mask2former: the size
    of its training crops, since its graph holds for one size)."""
    threshold: Threshold | None = None
    """Background score of CAMs; auto takes the one that the run chose without masks, None the one at which it scored
    its seeds."""
    label_threshold: float = 0.5
    """CAMs: probability from which the classifier's label counts as present."""

    def __post_init__(self) -> None:
        if self.size is not None and (min(self.size) < 32 or any(side % 32 for side in self.size)):
            raise ConfigError(f"--size is {self.size[0]} {self.size[1]}, expected multiples of 32")
        if not 0 <= self.label_threshold <= 1:
            raise ConfigError(f"--label-threshold is {self.label_threshold:g}, expected a probability from 0 to 1")

    @property
    def forms(self) -> tuple[str, ...]:
        """What is written."""
        return self.to or (("onnx",) if self.network == "cam" or self.threshold is not None else ("onnx", "hub"))


@dataclass(frozen=True)
class LabelTheseArguments:
    """Which images to label by hand, or where the corrected masks are."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Output folder of a run that has a report."""
    number: int = 20
    """So many images."""
    out: str = ""
    """Folder for the images and the drafts of their masks; empty takes label_these in the run's folder."""
    read: str = ""
    """Folder of drafts that were corrected: score the run against them."""
    system: str = ""
    """System whose masks are the drafts; empty takes the run's last one."""
    random: bool = False
    """Draw the images at random: needed for a score that stands for all images."""
    seed: int = 0
    """Seed of the random draw, and of the resampling behind intervals."""
    resamples: int = 2000
    """Resamples of the images behind each interval."""
    accept_unchanged: bool = False
    """With --read: drafts that were left as they are count as right."""

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ConfigError(f"--number is {self.number}, expected at least 1")
        if self.resamples < 100:
            raise ConfigError(f"--resamples is {self.resamples}, expected at least 100: fewer give no 95 % interval")
        if self.seed < 0:
            raise ConfigError(f"--seed is {self.seed}, expected at least 0")

    @property
    def folder(self) -> str:
        """Where drafts are written, or read."""
        return self.read or self.out or storage.join(self.run, "label_these")


@dataclass(frozen=True)
class ExportMasksArguments:
    """Which masks of which run, in what form, and where to."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Output folder of a run."""
    to: Literal["coco", "coco-polygons", "labelme", "cvat", "yolo", "voc", "mmseg"]
    """Form: COCO's JSON with run lengths or with polygons; LabelMe's and X-AnyLabeling's JSON; CVAT's XML (CVAT for
    images 1.1); YOLO's text files; palette PNGs in VOC's layout or in MMSegmentation's."""
    out: str
    """Folder to write to; it must be empty."""
    what: Literal["masks", "predictions"] = "masks"
    """The pseudo masks, or what the final network says of the test images."""
    system: str = ""
    """System of the run; empty takes its last one."""
    predicted: str = ""
    """Folder that `qaclims predict` wrote with this run: export its masks instead."""
    split: str = ""
    """Only the images of this split."""
    without_images: bool = False
    """Do not copy the images beside the masks."""

    def __post_init__(self) -> None:
        if self.predicted and (self.system or self.split or self.what != "masks"):
            raise ConfigError("--predicted names a folder of masks: leave out --system, --split and --what")


@dataclass(frozen=True)
class PromptArguments:
    """Whose prompts to read, with which words, on which images."""

    run: str
    """Output folder of a trained run; it may also be the first word, without --run."""
    system: str = ""
    """System of the run; empty takes the last one that has learned prompts."""
    words: str = ""
    """File with one word a line; empty takes the miniature's words, the corpus's answers or a short list."""
    images: tuple[str, ...] = ()
    """Ids of images to show; empty shows one image for each of the first classes."""
    manual: tuple[str, ...] = ()
    """Words of manual prompts to compare with; empty takes the word nearest to the class's prompt."""
    top: int = WORDS_PER_CLASS
    """Words per class."""
    out: str = ""
    """Folder for prompts.json and prompts.png; empty takes report/prompts/SYSTEM in the run."""


@dataclass(frozen=True)
class UiArguments:
    """Which runs to show, and where."""

    place: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PLACE")] = "runs"
    """Folder of a run, or the one that holds runs."""
    port: int = 5000
    """Port on this machine; where it is taken the next free one."""

    def __post_init__(self) -> None:
        if not 1024 <= self.port <= 65535:
            raise ConfigError(f"--port is {self.port}, expected 1024 to 65535")
