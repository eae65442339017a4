"""cluster.yaml: what Ray's schema checks, and what neither Ray nor AWS would tell before money is spent."""

import copy
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
TOKEN_DIR = "/home/ray/ray-auth"


@pytest.fixture(scope="module")
def text():
    return (ROOT / "cluster.yaml").read_text()


@pytest.fixture
def config(text):
    return yaml.safe_load(text)


@pytest.fixture
def aws(monkeypatch, tmp_path):
    """A simulated AWS with a security group and an image, as docs/cluster/aws.md has the user make them."""
    import boto3
    from moto import mock_aws

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "simulated")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    with mock_aws():
        yield boto3.client("ec2", region_name="us-west-2")


def gpu_types(config):
    types = config["available_node_types"]
    return {name: kind for name, kind in types.items() if name != config["head_node_type"]}


def addresses(value):
    """Every string in a nested value."""
    if isinstance(value, dict):
        return [text for item in value.values() for text in addresses(item)]
    if isinstance(value, list):
        return [text for item in value for text in addresses(item)]
    return [str(value)]


def test_ray_accepts_it(config):
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(config)))


def test_ray_would_refuse_a_misspelt_key(config):
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    config["available_node_types"]["gpu_spot"]["min_worker"] = 0
    with pytest.raises((ValidationError, ValueError)):
        validate_config(prepare_config(config))


def test_images_are_the_pinned_ray(config):
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    docker = config["docker"]
    assert "image" not in docker, "head and workers name their own"
    assert docker["head_image"] == f"rayproject/ray:{pinned[1]}-py311-cpu"
    assert docker["worker_image"] == f"rayproject/ray:{pinned[1]}-py311-gpu"


def test_instance_types_are_real_and_hold_what_is_declared(config):
    from moto.ec2.models.instance_types import INSTANCE_TYPES as known  # EC2's catalogue, as moto ships it

    kinds = config["available_node_types"]
    assert "m5.xlarg" not in known
    for name, kind in kinds.items():
        machine = known[kind["node_config"]["InstanceType"]]
        gpus = sum(gpu["Count"] for gpu in machine.get("GpuInfo", {}).get("Gpus", []))
        assert kind["resources"].get("GPU", 0) == gpus, name
        assert kind["resources"]["CPU"] in (0, machine["VCpuInfo"]["DefaultVCpus"]), name
        assert "x86_64" in machine["ProcessorInfo"]["SupportedArchitectures"], name


def test_workers_scale_from_zero_and_the_head_works_for_nobody(config):
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"], "the head must not be taken away"
    workers = gpu_types(config)
    assert all(kind["min_workers"] == 0 and kind["resources"]["GPU"] >= 1 for kind in workers.values())
    assert any(kind["max_workers"] >= 2 for kind in workers.values()), "preset voc12 trains with two workers"
    assert max(kind["max_workers"] for kind in workers.values()) <= config["max_workers"]
    # A stopped worker skips the initialization commands when it comes back, and so the mount.
    assert config["provider"]["cache_stopped_nodes"] is False


def test_nothing_is_open(config, text):
    assert "0.0.0.0" not in "".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    assert not [value for value in addresses(config) if "::/0" in value]
    assert "security_group" not in config["provider"], "rules belong to the user's own group"
    for kind in config["available_node_types"].values():
        assert kind["node_config"]["SecurityGroupIds"], "Ray's own group opens port 22 to the internet"
        assert kind["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
    (start,) = [command for command in config["head_start_ray_commands"] if "--head" in command]
    assert "--dashboard-host=127.0.0.1" in start


def bootstrapped(text, aws, *, own_group):
    """Return Ray's final configuration, after it has asked (simulated) AWS and made what it misses."""
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.util import prepare_config

    vpc = aws.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = aws.create_security_group(GroupName="qaclims", Description="ours", VpcId=vpc)["GroupId"]
    config = yaml.safe_load(re.sub(r"\bsg-\w+", group, text).replace("ami-REPLACE", "ami-0123456789abcdef0"))
    for kind in config["available_node_types"].values():
        # A role of one's own, so that Ray does not wait for a new one.
        kind["node_config"]["IamInstanceProfile"] = {"Arn": "arn:aws:iam::123456789012:instance-profile/x"}
        if not own_group:
            del kind["node_config"]["SecurityGroupIds"]
    return group, bootstrap_aws(prepare_config(config))


def open_ports(aws):
    groups = aws.describe_security_groups()["SecurityGroups"]
    ranges = [item for group in groups for rule in group["IpPermissions"] for item in rule.get("IpRanges", [])]
    return [item for item in ranges if item["CidrIp"] == "0.0.0.0/0"]


def test_ray_opens_nothing_when_it_launches(text, aws):
    group, config = bootstrapped(text, aws, own_group=True)
    for kind in config["available_node_types"].values():
        assert kind["node_config"]["SecurityGroupIds"] == [group]
        assert kind["node_config"]["SubnetIds"]
    assert open_ports(aws) == []


def test_ray_would_open_ssh_to_the_world_without_our_group(text, aws):
    # The reason for the rule above; when this fails, Ray has become safer and the placeholder can go.
    bootstrapped(text, aws, own_group=False)
    assert open_ports(aws)


def test_the_token_reaches_every_node(config):
    assert config["file_mounts"][TOKEN_DIR] == "~/.qaclims-ray"
    # run_options are for head and workers alike, unlike head_run_options.
    options = config["docker"]["run_options"]
    assert "-e RAY_AUTH_MODE=token" in options
    assert f"-e RAY_AUTH_TOKEN_PATH={TOKEN_DIR}/auth_token" in options


def test_the_token_is_not_in_the_repository(config, text):
    assert "RAY_AUTH_TOKEN=" not in text
    assert not (ROOT / "auth_token").exists()


def test_shared_storage_is_mounted_on_host_and_container(config):
    commands, region = "\n".join(config["initialization_commands"]), config["provider"]["region"]
    assert re.search(rf"mount -t nfs4\s.*fs-\w+\.efs\.{region}\.amazonaws\.com:/ /mnt/shared", commands)
    assert "-v /mnt/shared:/mnt/shared" in config["docker"]["run_options"]


def test_nodes_install_the_tested_versions(config):
    assert config["file_mounts"]["/home/ray/qaclims-dist"] == "./dist"
    (install,) = config["setup_commands"]
    assert "-c /home/ray/qaclims-dist/constraints.txt /home/ray/qaclims-dist/*.whl" in install


def test_ids_are_placeholders_or_whole(text):
    # A forgotten placeholder is no valid id, so AWS refuses it; a filled-in copy of the file passes these tests too.
    found = set(re.findall(r"\b(ami|sg|fs)-(\w+)", text))
    assert {kind for kind, _ in found} == {"ami", "sg", "fs"}
    assert all(value == "REPLACE" or re.fullmatch(r"[0-9a-f]{8,17}", value) for _, value in found)


def test_the_guide_names_every_placeholder_and_no_open_address():
    guide = (ROOT / "docs" / "cluster" / "aws.md").read_text()
    for placeholder in ("ami-REPLACE", "sg-REPLACE", "fs-REPLACE"):
        assert placeholder in guide
    assert not re.search(r"--(dashboard-)?host[= ]0\.0\.0\.0", guide)
