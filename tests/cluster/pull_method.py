"""A method from outside the package, as a reader of CONTRIBUTING would write it: regions pulled to their class text."""

from qaclims_ray.methods.generator_task import generator_task
from qaclims_ray.methods.method import Method, Outcome, Phase
from qaclims_ray.methods.region_features import RegionOptions, Regions
from qaclims_ray.training.config import OptimConfig
from qaclims_ray.training.meter import weighted

OPTIM = OptimConfig(name="adamw", lr=1e-3, head_lr_factor=1.0, epochs=1, batch_size=8)
WEIGHTS = {"pull": 1.0, "area": 0.5}


def phases(recipe, sources):
    settings = recipe.identity(weights=WEIGHTS)
    inputs = {"classifier": sources.classifier.fingerprint, "clip": sources.clip}
    network = yield Phase(kind="pull", settings=settings, inputs=inputs, optim=OPTIM, is_last=True, train=train,
                          start=sources.classifier)  # fmt: skip
    return Outcome(network)


def train(bench):
    net, options = bench.recipe.cam_net, RegionOptions()
    regions = Regions(clip=bench.clip, options=options, image_mean=net.image_mean, image_std=net.image_std)

    def step(network, batch):
        image, class_id = batch["labels"].nonzero().to(batch["image"].device).unbind(dim=1)
        found = regions(network(batch["image"]), batch["image"], image, class_id)
        pull = 1 - (found.foreground * bench.class_texts[class_id]).sum(dim=1)
        shares = {"pull": pull.sum() / OPTIM.batch_size, "area": found.area.sum() / OPTIM.batch_size}
        return weighted(shares, WEIGHTS, {"pairs": len(class_id)})

    network, rate = bench.setup.generator(bench.start_dir), bench.rate(options)
    task = generator_task(network, step, bench.setup.images(), OPTIM, freeze_batch_norm=True, rate=rate)
    return bench.setup.fit(task)


PULL = Method(name="pull", kind="pull", phases=phases, uses_clip=True)
