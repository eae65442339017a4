"""Settings of the workers of trainings, and of how Ray is reached.

How many actors infer stands with what they compute: `corpus.num_actors`, `cams.num_actors`, `masks.num_actors`.
"""

from qaclims_ray.models.precision import Arithmetic, TrainingPrecision, stands_for
from qaclims_ray.settings import require, require_at_least, settings


@settings
class ClusterConfig:
    """Resources of the trainings, and how Ray is reached."""

    num_workers: int = 1
    """Training workers (DDP ranks); 0 trains in the driver's own process."""
    min_workers: int | None = None
    """Elastic training: go on with so few workers while nodes are missing, and with up to `num_workers` when they are
    back; the update is the same. None always waits for all."""
    use_gpu: bool = False
    """One GPU per training worker."""
    cpus_per_worker: float | None = None
    """Logical CPUs of a training worker, and its threads. None shares out the cores of this machine among the workers
    where the run starts a Ray of its own, and asks a Ray that it joins for 1 each. The number of threads changes how
    sums are rounded, nothing else; 0 workers take torch's own number."""
    precision: TrainingPrecision = "auto"
    """Arithmetic of all trainings, and of the CLIP in them: fp32, bf16; auto is bf16 on GPUs, fp32 on CPUs. Losses
    always compute in float32."""
    max_failures: int = 2
    """Restarts of a training after worker failures."""
    loader_workers: int = 0
    """Image loading processes per training worker."""
    object_store_mib: int = 200
    """Object store of a Ray started by this run; ignored when joining a cluster."""
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
        require_at_least(self, "cluster", 0, "num_workers", "loader_workers", "max_failures")
        require(
            self.min_workers is None or 1 <= self.min_workers <= self.num_workers,
            f"cluster.min_workers is {self.min_workers}, expected 1 to cluster.num_workers ({self.num_workers})",
        )
        require_at_least(self, "cluster", 80, "object_store_mib")  # Ray itself refuses less than 75
        require(
            self.cpus_per_worker is None or self.cpus_per_worker > 0,
            f"cluster.cpus_per_worker is {self.cpus_per_worker}, expected more than 0, or None",
        )
        require(self.num_cpus is None or self.num_cpus >= 1, f"cluster.num_cpus is {self.num_cpus}, expected 1 or more")
