"""Settings of the workers of trainings, and of how Ray is reached.

How many actors infer stands with what they compute: `corpus.num_actors`, `cams.num_actors`, `masks.num_actors`.
"""

from qaclims_ray.models.precision import Arithmetic, TrainingPrecision, stands_for
from qaclims_ray.settings import require, require_at_least, settings


@settings
class ClusterConfig:
    """Resources of the trainings, and how Ray is reached."""

    num_workers: int | None = None
    """Training workers (DDP ranks); 0 trains in the driver's own process. None takes one for every GPU that is there at
    the start, as far as the smallest batch goes, or one without GPUs and beside other runs on one Ray. Their number
    changes how sums are rounded, nothing else."""
    min_workers: int | None = None
    """Elastic training: go on with so few workers while nodes are missing, and with up to `num_workers` when they are
    back; the update is the same. None always waits for all."""
    use_gpu: bool = False
    """One GPU per training worker."""
    cpus_per_worker: float | None = None
    """Logical CPUs of a training worker, and its threads. None shares out the cores of this machine among the workers
    where the run starts a Ray of its own, and asks a Ray that it joins for 1 each, or with GPUs for all but one that a
    node has for each of them (4 beside other runs). The number of threads changes how sums are rounded, nothing else;
    0 workers take torch's own number."""
    precision: TrainingPrecision = "auto"
    """Arithmetic of all trainings, and of the CLIP in them: fp32, bf16; auto is bf16 on GPUs, fp32 on CPUs. Losses
    always compute in float32."""
    max_failures: int = 2
    """Restarts of a training after worker failures."""
    no_progress_minutes: float | None = 360.0
    """Longest silence, in minutes: a stage of which no shard ends, or a training that reports no step, for so long ends
    with an error, and what is finished is kept; a single task may take no longer in all. The time that Ray waits for
    room or for new machines counts. A training in the run's own process (`num_workers` 0) has no bound. None waits for
    ever."""
    loader_workers: int | None = None
    """Image loading processes per training worker. None takes one for each of a worker's CPUs but one, at most 8, where
    it has a GPU, and none where it computes on these CPUs itself."""
    object_store_mib: int | None = None
    """Object store of a Ray started by this run, in MiB, through which pixels come to GPUs and maps from them; ignored
    when joining a cluster. None takes 200 where all is computed on CPUs, and else 3/10 of the free memory."""
    num_cpus: int | None = None
    """Logical CPUs of a Ray started by this run; None takes at least what the stages need."""

    @property
    def gpus_per_worker(self) -> int:
        """GPUs of a training worker."""
        return 1 if self.use_gpu else 0

    @property
    def arithmetic(self) -> Arithmetic:
        """What `precision` stands for."""
        return stands_for(self.precision, gpus=self.gpus_per_worker, auto="bf16")

    def __post_init__(self) -> None:
        given = [name for name in ("num_workers", "loader_workers") if getattr(self, name) is not None]
        require_at_least(self, "cluster", 0, *given, "max_failures")
        require(
            self.min_workers is None or 1 <= self.min_workers <= (self.num_workers or self.min_workers),
            f"cluster.min_workers is {self.min_workers}, expected 1 to cluster.num_workers ({self.num_workers})",
        )
        require(
            self.no_progress_minutes is None or self.no_progress_minutes > 0,
            f"cluster.no_progress_minutes is {self.no_progress_minutes}, expected more than 0, or None",
        )
        if self.object_store_mib is not None:
            require_at_least(self, "cluster", 80, "object_store_mib")  # Ray itself refuses less than 75
        require(
            self.cpus_per_worker is None or self.cpus_per_worker > 0,
            f"cluster.cpus_per_worker is {self.cpus_per_worker}, expected more than 0, or None",
        )
        require(self.num_cpus is None or self.num_cpus >= 1, f"cluster.num_cpus is {self.num_cpus}, expected 1 or more")
        require(
            self.num_workers != 0 or self.min_workers is None,
            f"cluster.min_workers is {self.min_workers}, but cluster.num_workers 0 has no workers",
        )

    @property
    def least_workers(self) -> int:
        """Workers that a training has at least, where their number is open."""
        return self.num_workers if self.num_workers is not None else self.min_workers or 1
