"""Where a run keeps its artefacts: the only place that knows the folder names."""

from dataclasses import dataclass

from qaclims_ray.data import storage
from qaclims_ray.methods.method import Method
from qaclims_ray.methods.semples.config import PROMPTS_DIR
from qaclims_ray.models.clip.config import PROMPTS_NAME

CORPUS_TABLE = "answers"
"""The corpus's shards, in its folder."""


@dataclass(frozen=True)
class RunLayout:
    """Paths of one run, below its output folder (a path or fsspec URI)."""

    out: str
    trial: str = ""
    """Name of a run at work beside others in one folder: it shares their artefacts and keeps records of its own."""

    @property
    def records(self) -> str:
        """What belongs to one run and not to its artefacts: configuration, timings, tracking."""
        return storage.join(self.out, "trials", self.trial) if self.trial else self.out

    @property
    def config(self) -> str:
        """The resolved configuration."""
        return storage.join(self.records, "config.json")

    @property
    def data(self) -> str:
        """Generated images of the miniature world."""
        return storage.join(self.out, "data")

    @property
    def manifest(self) -> str:
        """The manifest."""
        return storage.join(self.out, "manifest")

    @property
    def corpus(self) -> str:
        """The corpus table."""
        return storage.join(self.out, "corpus")

    @property
    def corpus_table(self) -> str:
        """The corpus's shards, a folder that pandas and DuckDB read as one table."""
        return storage.join(self.corpus, CORPUS_TABLE)

    @property
    def classifier(self) -> str:
        """The baseline network, and its calibrated twin where asked for."""
        return storage.join(self.out, "classifier")

    @property
    def training_runs(self) -> str:
        """Checkpoints of trainings in progress; a trial's are its own, since another may train the same beside it."""
        return storage.join(self.records, "training_runs")

    @property
    def report(self) -> str:
        """The report."""
        return storage.join(self.out, "report")

    @property
    def trust(self) -> str:
        """What is known of the label maps without a mask."""
        return storage.join(self.out, "trust")

    @property
    def handed_out(self) -> str:
        """Lists of the masks that were handed out to be corrected."""
        return storage.join(self.out, "handed_out")

    @property
    def gallery(self) -> str:
        """Every image at every stage, beside the report."""
        return storage.join(self.report, "gallery")

    def text_bank(self, system: str) -> str:
        """A system's text bank."""
        return storage.join(self.out, "text_banks", system)

    def network(self, system: str) -> str:
        """A system's trained network."""
        return storage.join(self.out, "networks", system)

    def prompts(self, system: str) -> str:
        """A system's learned prompts, where it has any."""
        return storage.join(self.network(system), PROMPTS_DIR)

    def has_prompts(self, system: str) -> bool:
        """Whether prompts that a system learned are there."""
        return storage.exists(storage.join(self.prompts(system), PROMPTS_NAME))

    def phase(self, name: str) -> str:
        """One phase of a training in several phases; systems share what they have in common."""
        return storage.join(self.out, "phases", name)

    def cams(self, system: str) -> str:
        """A system's CAMs."""
        return storage.join(self.out, "cams", system)

    def threshold(self, system: str) -> str:
        """The threshold that was chosen of a system's CAMs without masks."""
        return storage.join(self.out, "thresholds", system)

    def evaluation(self, system: str) -> str:
        """A system's scores."""
        return storage.join(self.out, "evaluations", system)

    def seed_labels(self, system: str) -> str:
        """A system's confident seeds, from which its affinity network learns."""
        return storage.join(self.out, "seed_labels", system)

    def affinity(self, system: str) -> str:
        """A system's affinity network (IRN)."""
        return storage.join(self.out, "affinity", system)

    def masks(self, system: str) -> str:
        """A system's pseudo masks."""
        return storage.join(self.out, "masks", system)

    def segmentation(self, system: str) -> str:
        """A system's final network."""
        return storage.join(self.out, "segmentation", system)

    def round_network(self, system: str, number: int) -> str:
        """A system's final network of a round before the last, counted from 1."""
        return storage.join(self.out, "rounds", system, f"network-{number}")

    def round_masks(self, system: str, number: int) -> str:
        """The masks that a round after the first learns from, made by the network of the one before."""
        return storage.join(self.out, "rounds", system, f"masks-{number}")

    def predictions(self, system: str) -> str:
        """What a system's final network says of the test split, and its scores."""
        return storage.join(self.out, "predictions", system)


def network_uri_of(layout: RunLayout, system: str, method: Method) -> str:
    """Return where the network is whose CAMs a system's are."""
    return layout.classifier if method.is_classifier else layout.network(system)
