"""docs/cluster: what can be said about Google Cloud, named machines, Kubernetes and Slurm without having them."""

import copy
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from qaclims_ray.commands.main import run_verb
from qaclims_ray.presets.table import preset
from qaclims_ray.stages.resources import needs_of

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "docs" / "cluster"
RAY_UP = ("gcp.yaml", "on_premises.yaml")
FILES = (*RAY_UP, "kuberay.yaml", "slurm.sh", "Containerfile")
GUIDES = {"gcp.yaml": "gcp", "on_premises.yaml": "on_premises", "kuberay.yaml": "kuberay", "slurm.sh": "slurm"}
TOKEN = "~/.qaclims-ray"

# From KubeRay 1.6's type definitions (raycluster_types.go, rayjob_types.go) and its API reference.
RAY_JOB = {
    *("activeDeadlineSeconds", "backoffLimit", "rayClusterSpec", "submitterPodTemplate", "metadata", "clusterSelector"),
    *("submitterConfig", "managedBy", "deletionStrategy", "entrypoint", "runtimeEnvYAML", "jobId", "submissionMode"),
    *("entrypointResources", "entrypointNumCpus", "entrypointNumGpus", "ttlSecondsAfterFinished"),
    *("shutdownAfterJobFinishes", "suspend"),
}
RAY_CLUSTER = {
    *("suspend", "managedBy", "authOptions", "autoscalerOptions", "headServiceAnnotations", "enableInTreeAutoscaling"),
    *("gcsFaultToleranceOptions", "headGroupSpec", "rayVersion", "workerGroupSpecs"),
}
HEAD_GROUP = {"template", "headService", "enableIngress", "rayStartParams", "serviceType"}
WORKER_GROUP = {
    *("groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts", "rayStartParams", "template"),
    *("scaleStrategy", "suspend", "idleTimeoutSeconds"),
}

# From the Compute API's description: what an instance is made of, and what Google's machines hold.
INSTANCE = {"machineType", "disks", "networkInterfaces", "scheduling", "serviceAccounts", "labels", "metadata", "tags"}
SCHEDULING = {"provisioningModel", "instanceTerminationAction", "onHostMaintenance", "automaticRestart"}
MACHINES = {"n2-standard-4": (4, 0), "g2-standard-8": (8, 1), "g2-standard-48": (48, 4)}


def text_of(name):
    return (FOLDER / name).read_text()


def load(name):
    return yaml.safe_load(text_of(name))


def kuberay():
    return list(yaml.safe_load_all(text_of("kuberay.yaml")))


def commands_of(text):
    """Text without comments and with continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return "\n".join(lines).replace("\\\n", " ")


@pytest.fixture(scope="module")
def pinned():
    found = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_accepts_it(name):
    validate_config(prepare_config(load(name)))


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_would_refuse_a_misspelt_key(name):
    from jsonschema import ValidationError

    config = load(name)
    config["setup_comands"] = []
    with pytest.raises((ValidationError, ValueError)):
        validate_config(prepare_config(config))


@pytest.mark.parametrize("name", FILES)
def test_versions_are_the_pinned_ones(name, pinned):
    found = re.findall(r"rayproject/ray:([\d.]+)-py311-|rayVersion: ([\d.]+)", text_of(name))
    assert {version for pair in found for version in pair if version} <= {pinned}
    assert found or name in ("on_premises.yaml", "slurm.sh")
    built = re.findall(r"qaclims-ray:([\d.]+)", text_of(name))
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None and set(built) <= {version[1]}


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_open(name):
    commands = commands_of(text_of(name))
    assert "0.0.0.0" not in commands and "::/0" not in commands
    assert not re.search(r"\b(LoadBalancer|NodePort|hostNetwork|enableIngress: true)\b", commands)
    for host in re.findall(r"--dashboard-host[= ](\S+)", commands):
        assert host == "127.0.0.1"
    assert "RAY_AUTH_TOKEN=" not in commands, "the token itself is in no file"


@pytest.mark.parametrize("name", (*RAY_UP, "slurm.sh"))
def test_the_dashboard_is_said_to_listen_on_loopback(name):
    assert "--dashboard-host=127.0.0.1" in commands_of(text_of(name)), "not left to Ray's default"


def test_every_node_asks_for_the_token():
    gcp, named = load("gcp.yaml"), load("on_premises.yaml")
    assert gcp["file_mounts"]["/home/ray/ray-auth"] == TOKEN
    options = gcp["docker"]["run_options"]
    assert {"-e RAY_AUTH_MODE=token", "-e RAY_AUTH_TOKEN_PATH=/home/ray/ray-auth/auth_token"} <= set(options)
    assert named["file_mounts"][TOKEN] == TOKEN
    (exported,) = [command for command in named["setup_commands"] if ".bashrc" in command]
    assert f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={TOKEN}/auth_token" in exported
    assert kuberay()[0]["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$HOME/.qaclims-ray/auth_token" in text_of("slurm.sh")


@pytest.mark.parametrize("name", FILES)
def test_placeholders_are_named_by_the_guide(name):
    found = set(re.findall(r"[A-Z0-9-]+-REPLACE", text_of(name)))
    guide = text_of(GUIDES.get(name, "kuberay") + ".md")
    assert all(placeholder in guide for placeholder in found), found


@pytest.mark.parametrize("name", RAY_UP)
def test_nodes_install_the_tested_versions(name):
    config = load(name)
    assert "./dist" in config["file_mounts"].values()
    assert any(re.search(r"-c \S+/constraints.txt \S+/\*.whl", command) for command in config["setup_commands"])


# ---- the machines of Google Cloud


def test_google_machines_hold_what_is_declared():
    kinds = load("gcp.yaml")["available_node_types"]
    for name, kind in kinds.items():
        cpus, gpus = MACHINES[kind["node_config"]["machineType"]]
        assert kind["resources"].get("GPU", 0) == gpus, name
        assert kind["resources"]["CPU"] in (0, cpus), name
        assert set(kind["node_config"]) <= INSTANCE
        assert set(kind["node_config"].get("scheduling", {})) <= SCHEDULING
        if gpus:
            assert kind["node_config"]["scheduling"]["onHostMaintenance"] == "TERMINATE", "GPUs cannot move"
            assert kind["min_workers"] == 0


def test_google_head_works_for_nobody_and_stays():
    config = load("gcp.yaml")
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert "scheduling" not in head["node_config"]
    # Ray's GCP provider needs this on the head, and the package does not bring it.
    assert any("google-api-python-client" in command for command in config["head_setup_commands"])


def test_google_machines_are_in_our_network_and_zone():
    config = load("gcp.yaml")
    provider = config["provider"]
    assert provider["availability_zone"].startswith(provider["region"] + "-")
    for kind in config["available_node_types"].values():
        (network,) = kind["node_config"]["networkInterfaces"]
        assert network["subnetwork"] == (
            f"projects/{provider['project_id']}/regions/{provider['region']}/subnetworks/qaclims"
        )


# ---- named machines


def test_all_named_machines_work_all_the_time():
    config = load("on_premises.yaml")
    assert not {"min_workers", "max_workers", "available_node_types"} & set(config)
    (kind,) = prepare_config(copy.deepcopy(config))["available_node_types"].values()
    assert kind["min_workers"] == kind["max_workers"] == len(config["provider"]["worker_ips"])


def test_named_machines_are_started_by_the_autoscaler_that_can():
    # `ray up` puts RAY_enable_autoscaler_v2=1 in front; the later export wins. See on_premises.md.
    start = load("on_premises.yaml")["head_start_ray_commands"][-1]
    assert start.index("RAY_enable_autoscaler_v2=0") < start.index("ray start")


def test_the_trial_ran_the_file_to_its_end():
    log = text_of("on_premises.log")
    ends = ("no Ray left on the head: yes", "no Ray left on the worker: yes")
    for line in ("two nodes: yes", "answers from 24 images", "ResourceError: this Ray has 8 CPU", *ends):
        assert line in log, line
    assert log.rstrip().splitlines()[-1].startswith("==> done")
    assert not re.search(r"/(root|home)\b", log), "a path of the machine where it was tried"


@pytest.mark.parametrize("script", ["docs/cluster/slurm.sh", "benchmarks/on_premises_trial.sh"])
def test_bash_reads_the_scripts(script):
    subprocess.run(["bash", "-n", ROOT / script], check=True)
    assert os.access(ROOT / script, os.X_OK)


# ---- Kubernetes


def test_kuberay_knows_the_fields():
    job, policy = kuberay()
    assert (job["apiVersion"], job["kind"], policy["kind"]) == ("ray.io/v1", "RayJob", "NetworkPolicy")
    spec = job["spec"]
    assert set(spec) <= RAY_JOB
    cluster = spec["rayClusterSpec"]
    assert set(cluster) <= RAY_CLUSTER
    assert set(cluster["headGroupSpec"]) <= HEAD_GROUP
    assert all(set(group) <= WORKER_GROUP for group in cluster["workerGroupSpecs"])
    assert spec["submissionMode"] in ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert all(isinstance(value, str) for group in groups for value in group["rayStartParams"].values())


def test_kuberay_cluster_ends_with_the_job_and_holds_the_run():
    spec = kuberay()[0]["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    cpus = gpus = 0
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        assert group["replicas"] == group["minReplicas"] == group["maxReplicas"], "no autoscaler is there to add pods"
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        cpus += group["replicas"] * int(limits["cpu"])
        gpus += group["replicas"] * int(limits["nvidia.com/gpu"])
    needs = needs_of(preset("voc12"))
    assert cpus >= needs.cpus and gpus >= needs.gpus
    assert spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_kuberay_pods_agree():
    job, policy = kuberay()
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    templates = [job["spec"]["submitterPodTemplate"], *(group["template"] for group in groups)]
    assert len({template["spec"]["containers"][0]["image"] for template in templates}) == 1
    # The policy holds for all of them, the submitter included, and lets in nobody but them and the operator.
    selected = policy["spec"]["podSelector"]["matchLabels"]
    assert all(template["metadata"]["labels"] == selected for template in templates)
    pods = [source["podSelector"]["matchLabels"] for rule in policy["spec"]["ingress"] for source in rule["from"]]
    assert pods == [selected, {"app.kubernetes.io/name": "kuberay-operator"}]
    for template in templates[1:]:
        mounted = {mount["name"] for mount in template["spec"]["containers"][0]["volumeMounts"]}
        assert mounted == {volume["name"] for volume in template["spec"]["volumes"]} == {"shared", "memory"}


# ---- the image


def test_the_image_copies_what_is_there():
    lines = commands_of(text_of("Containerfile"))
    sources = re.findall(r"^COPY (?:--\S+ )*(\S+) \S+$", lines, re.MULTILINE)
    assert sources == ["dist/", "jobs/"], "dist/ is built first, as its head says"
    assert (ROOT / "jobs").is_dir()
    assert "-c /home/ray/qaclims-dist/constraints.txt /home/ray/qaclims-dist/*.whl" in lines
    folder = re.search(r"^WORKDIR (\S+)$", lines, re.MULTILINE)
    assert folder is not None and f"{folder[1]}/jobs/" in lines, "entrypoints name jobs/... from the working folder"


# ---- commands: every flag exists


def job_commands():
    """Every `python jobs/...` line of the files and guides, with the place it stands in."""
    found = []
    for path in sorted([*FOLDER.glob("*.md"), FOLDER / "kuberay.yaml", FOLDER / "slurm.sh", ROOT / "docs/cluster.md"]):
        text = re.sub(r"(jobs/\S+[^\n]*)\n +(?=--)", r"\1 ", path.read_text().replace("\\\n", " "))
        text = re.sub(r"(jobs/\S+[^\n]*)\n +(?=--)", r"\1 ", text)
        for line in re.findall(r"python (jobs/\w+\.py [^\n`]*)", text):
            found.append((path.name, line))
    return found


def test_there_are_commands_to_check():
    assert {"kuberay.yaml", "slurm.sh", "aws.md", "cluster.md"} <= {name for name, _ in job_commands()}


@pytest.mark.parametrize(("place", "line"), job_commands())
def test_jobs_know_the_flags(place, line, capsys):
    job, *arguments = shlex.split(line, comments=True)
    assert (ROOT / job).is_file(), f"{place}: {job}"
    flags = {argument.split("=")[0] for argument in arguments if argument.startswith("--")} - {"--help"}
    chosen = arguments[arguments.index("--preset") + 1] if "--preset" in arguments else "voc12"
    preset(chosen)
    with pytest.raises(SystemExit):
        run_verb("report", ["--preset", chosen, "--help"], prog=job)
    known = set(re.findall(r"--[a-z][\w.-]*", capsys.readouterr().out)) | {"--preset"}
    assert flags <= known, f"{place}: {sorted(flags - known)}"


def test_slurm_starts_ray_with_flags_that_it_has(tmp_path):
    """The script itself, on a machine whose `srun` says what it was asked for."""
    ray_bin = Path(sys.executable).parent
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ray").symlink_to(ray_bin / "ray")
    srun = tmp_path / "bin" / "srun"
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    (tmp_path / ".qaclims-ray").mkdir()
    (tmp_path / ".qaclims-ray" / "auth_token").write_text("token")
    env = {
        **os.environ,
        **{"HOME": str(tmp_path), "SHARED": "/shared", "ENVIRONMENT": str(tmp_path)},
        **{"SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "8", "SLURM_GPUS_ON_NODE": "1"},
    }
    asked = subprocess.run(
        ["bash", FOLDER / "slurm.sh"], env=env, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    start = asked[asked.index("symmetric-run") + 1 : asked.index("--")]
    assert start[start.index("--min-nodes") + 1] == "2"
    assert re.fullmatch(r"[\d.]+:6379", start[start.index("--address") + 1])
    options = subprocess.run([ray_bin / "ray", "start", "--help"], capture_output=True, text=True, check=True).stdout
    for flag in [argument.split("=")[0] for argument in start if argument.startswith("--")]:
        assert flag in options or flag == "--min-nodes"
    assert asked[asked.index("--") + 1 : asked.index("--") + 2] == ["env"]
    assert f"RAY_ADDRESS={start[start.index('--address') + 1]}" in asked


@pytest.mark.parametrize("missing", ["SHARED", "token"])
def test_slurm_says_what_is_missing(tmp_path, missing):
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "ENVIRONMENT": str(tmp_path)}
    if missing != "SHARED":
        env["SHARED"] = "/shared"
    outcome = subprocess.run(["bash", FOLDER / "slurm.sh"], env=env, capture_output=True, text=True)
    assert outcome.returncode != 0
    assert missing in outcome.stderr


# ---- the guides


@pytest.mark.parametrize("name", ["aws", "gcp", "on_premises", "kuberay", "slurm", "operations"])
def test_guides_are_linked_and_their_links_lead_somewhere(name):
    assert f"cluster/{name}.md" in (ROOT / "docs" / "index.md").read_text()
    assert f"cluster/{name}.md" in (ROOT / "docs" / "cluster.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text_of(f"{name}.md")):
        assert (FOLDER / target).exists(), target
