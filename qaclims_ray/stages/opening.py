"""What happens once in a run, before the first stage that has something to make: networks are tried, Ray is there."""

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from qaclims_ray.run_config import RunConfig
from qaclims_ray.stages.stage import StageProgress

if TYPE_CHECKING:
    from qaclims_ray.stages.resources import Room


class Opening:
    """Tries the run's networks and connects to Ray when it is first called; a run with nothing to do never does."""

    def __init__(self, config: RunConfig, session: contextlib.ExitStack, progress: StageProgress) -> None:
        """Do nothing yet.

        Args:
            config: the run.
            session: at its end a Ray that was started here ends.
            progress: where to say what stages get of Ray.
        """
        self._is_tried = False
        self._config, self._session, self._progress = config, session, progress
        self._room: "Room | None" = None

    def __call__(self) -> "Room":
        """Return what workers and actors may share out.

        Raises:
            QaclimsError: when weights do not fit their networks, when Ray cannot be reached or holds too little.
        """
        if self._room is None:
            # Not at the top: with them come PyTorch, timm and Ray.
            from qaclims_ray.cluster.session import ray_session, resources_there
            from qaclims_ray.stages.preflight import batch_sizes
            from qaclims_ray.stages.resources import needs_of, room_here, shared_out

            self.try_once()
            room = room_here(self._config)
            self._session.enter_context(ray_session(needs_of(self._config, room)))
            self._room = room.on(resources_there())
            smallest = min(batch_sizes(self._config).values(), default=None)
            cluster = self._room.shared_among_workers(self._config.cluster, smallest)
            self._progress.note(shared_out(replace(self._config, cluster=cluster), self._room))
        return self._room

    def try_once(self) -> None:
        """Try the run's networks where that was not done yet.

        Raises:
            QaclimsError: see `try_networks`.
        """
        if not self._is_tried:
            try_networks(self._config)
            self._is_tried = True


def try_networks(config: RunConfig) -> None:
    """Build each network of a run once and load its weights: broken ones would be found after the corpus, hours later.

    Raises:
        QaclimsError: the first fault, saying what was found, what was expected and what to do.
    """
    import torch

    from qaclims_ray.cluster.vllm_corpus import check_vllm
    from qaclims_ray.models.clip.frozen import load_clip
    from qaclims_ray.models.clip.patch_features import check_patch_features
    from qaclims_ray.models.clip.tower import describe_tower
    from qaclims_ray.models.generators.mask_generator import build_mask_generator
    from qaclims_ray.models.weights import FROM_CLASSIFIER, FROM_CLIP
    from qaclims_ray.refine.feature_affinity import load_cell_features
    from qaclims_ray.refine.irn.network import build_affinity_net
    from qaclims_ray.segmentation.networks.network import build_segmentation_network
    from qaclims_ray.stages.preflight import affinity_networks, check_starts, final_networks
    from qaclims_ray.systems.needs import (
        methods_of,
        needs_backbone,
        needs_clip,
        needs_corpus,
        refinements,
        refines_by_clip,
    )
    from qaclims_ray.systems.recipe import backbone_weights, clip_files

    if needs_corpus(config) and config.corpus.engine == "vllm":
        check_vllm()
    with torch.random.fork_rng(devices=[]):
        if needs_backbone(config):
            build_mask_generator(replace(config.cam_net, weights=backbone_weights(config)), num_classes=1)
        check_starts(config)  # a classifier that there is not is told of before
        for irn in affinity_networks(config):
            build_affinity_net(replace(irn, weights="random") if irn.weights == FROM_CLASSIFIER else irn)
        nets = {final.net for final in final_networks(config)}
        for net in (one for one in nets if one.weights != FROM_CLIP):
            net = replace(net, weights="random") if net.weights == FROM_CLASSIFIER else net
            build_segmentation_network(net, num_labels=2)
        for masks in refinements(config):
            if "feature_affinity" in masks.steps:
                load_cell_features(masks.feature_affinity, "cpu")
    if needs_clip(config):
        model, weights = clip_files(config)
        # Steps look at patches, which mask tokens do not change: a CLIP without any does for them.
        is_adapted = config.clip.mask_adapted and any(method.uses_clip for method in methods_of(config))
        clip = load_clip(model, weights, device="cpu", mask_adapted=is_adapted)
        if any(net.weights == FROM_CLIP for net in nets):
            describe_tower(clip.model.visual)
        if refines_by_clip(config):
            check_patch_features(clip.model.visual)
