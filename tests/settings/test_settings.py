"""Settings: one loader, every problem at once, and the engine's declaration equal to the model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ringfence.errors import InputError
from ringfence.settings import load, load_stack
from ringfence.settings.project_file import declared

ROOT = Path(__file__).parents[2]
ADMINS = ["arn:aws:iam::123456789012:role/operators"]
GOOD = {"ringfence:accountId": "123456789012", "ringfence:clusterAdmins": ADMINS}


def keys_of(error: InputError) -> set[str]:
    return {problem.key.removeprefix("ringfence:") for problem in error.problems}


def test_pulumi_yaml_declares_every_key_with_type_description_and_default():
    assert yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"] == declared()
    for key, entry in declared().items():
        assert entry["description"], key
        assert "default" in entry or key == "accountId"


def test_the_account_and_its_administrators_are_enough():
    settings = load(GOOD, "dev")
    assert (settings.environment, settings.profile, settings.system_nodes) == ("dev", "lean", 1)


def test_the_profile_sets_what_is_left_at_zero_and_nothing_else():
    zones = {"ringfence:availabilityZones": ["us-east-1a", "us-east-1b", "us-east-1c"]}
    settings = load(GOOD | zones | {"ringfence:profile": "production", "ringfence:systemNodes": 5}, "prod")
    assert (settings.system_nodes, settings.vault_replicas, settings.audit_lock_days) == (5, 3, 365)


def test_values_arrive_as_text_from_the_engine():
    raw = GOOD | {"ringfence:availabilityZones": '["us-east-1a","us-east-1c"]', "ringfence:networkFirewall": "true"}
    settings = load(raw | {"ringfence:systemNodes": "2"}, "dev")
    assert settings.availability_zones == ("us-east-1a", "us-east-1c")
    assert settings.network_firewall is True
    assert settings.system_nodes == 2


def test_an_account_id_with_a_leading_zero_stays_text():
    assert load(GOOD | {"ringfence:accountId": "012345678901"}, "dev").account_id == "012345678901"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("accountId", "1234"),
        ("profile", "huge"),
        ("vpcCidr", "8.8.8.0/16"),
        ("vpcCidr", "10.0.0.1/16"),
        ("vpcCidr", "10.0.0.0/24"),
        ("availabilityZones", ["us-east-1a"]),
        ("availabilityZones", ["us-east-1a", "us-east-1a"]),
        ("availabilityZones", ["eu-west-1a", "us-east-1b"]),
        ("systemNodes", 3),
        ("vaultReplicas", 2),
        ("auditRetentionDays", 33),
        ("clusterPublicAccessCidrs", ["0.0.0.0/0"]),
        ("clusterAdmins", ["arn:aws:iam::123456789012:root"]),
        ("alertEmails", ["nobody"]),
        ("allowedRegistries", ["https://registry.example.com"]),
        ("existingSystemSubnets", ["us-east-1a=subnet-0123456789abcdef0"]),
        ("existingVpcId", "vpc-0123456789abcdef0"),
        ("sandboxMinOnDemandNodes", 9),
        ("environment", "Prod"),
        ("target", "gcp"),
    ],
)
def test_a_bad_value_is_refused_by_its_key_with_a_remedy(key: str, value: object):
    with pytest.raises(InputError) as caught:
        load(GOOD | {f"ringfence:{key}": value}, "dev")
    expected = "existingPublicSubnets" if key == "existingVpcId" else key
    assert expected in keys_of(caught.value)
    assert all(problem.remedy for problem in caught.value.problems)


def test_no_sandbox_node_at_all_is_refused():
    with pytest.raises(InputError, match="leaves no node"):
        load(GOOD | {"ringfence:sandboxMaxSpotNodes": 0, "ringfence:sandboxMaxOnDemandNodes": 0}, "dev")


def test_a_placeholder_account_is_refused_on_aws_and_accepted_on_the_embedded_target():
    with pytest.raises(InputError, match="placeholder"):
        load(GOOD | {"ringfence:accountId": "000000000000"}, "dev")
    assert load(GOOD | {"ringfence:accountId": "000000000000", "ringfence:target": "embedded"}, "local")


def test_a_misspelt_key_names_the_nearest():
    with pytest.raises(InputError, match="did you mean availabilityZones"):
        load(GOOD | {"ringfence:availabilityZone": []}, "dev")


def test_provider_settings_that_would_be_ignored_are_refused():
    with pytest.raises(InputError, match="set ringfence:region"):
        load(GOOD | {"aws:region": "us-east-1"}, "dev")


def test_an_encrypted_setting_is_refused_rather_than_shown():
    with pytest.raises(InputError) as caught:
        load(GOOD | {"ringfence:vpcCidr": {"secure": "v1:ciphertext"}}, "dev")
    assert "ciphertext" not in str(caught.value)


def test_a_cluster_that_nobody_administers_is_refused():
    with pytest.raises(InputError, match="nobody could ever administer"):
        load(GOOD | {"ringfence:clusterAdmins": []}, "dev")


OWN = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
SERVICE = {
    "sandboxImage": f"{OWN}/ringfence-dev/agent-runtime@sha256:{'a' * 64}",
    "serviceImage": f"{OWN}/ringfence-dev/control@sha256:{'b' * 64}",
    "oidcIssuer": "https://id.example.com",
    "oidcAudience": "ringfence",
    "serviceClientCidrs": ["10.0.0.0/8"],
}


def with_service(**changes: object) -> dict[str, object]:
    return GOOD | {f"ringfence:{key}": value for key, value in (SERVICE | changes).items()}


def test_a_service_with_images_issuer_and_callers_is_taken_and_none_is_the_default():
    assert load(with_service(), "dev").service_client_cidrs == ("10.0.0.0/8",)
    assert load(GOOD, "dev").service_image == ""


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"sandboxImage": ""}, "sandboxImage"),
        ({"sandboxImage": f"{OWN}/agent-runtime:latest"}, "sandboxImage"),
        ({"sandboxImage": f"docker.io/a/b@sha256:{'a' * 64}"}, "sandboxImage"),
        ({"sandboxImage": f"{OWN}.evil.example/a@sha256:{'a' * 64}"}, "sandboxImage"),
        ({"allowedRegistries": ["registry.example.com"]}, "sandboxImage"),
        ({"serviceImage": f"docker.io/a/b@sha256:{'a' * 64}"}, "serviceImage"),
        ({"serviceImage": f"{OWN}/control@sha256:{'a' * 63}"}, "serviceImage"),
        ({"oidcIssuer": ""}, "oidcIssuer"),
        ({"oidcIssuer": "", "oidcAudience": ""}, "oidcIssuer"),
        ({"oidcAudience": ""}, "oidcAudience"),
        ({"oidcIssuer": "http://id.example.com"}, "oidcIssuer"),
        ({"oidcIssuer": "https://"}, "oidcIssuer"),
        ({"serviceClientCidrs": ["0.0.0.0/0"]}, "serviceClientCidrs"),
        ({"serviceClientCidrs": ["0.0.0.0/1", "128.0.0.0/1"]}, "serviceClientCidrs"),
        ({"serviceClientCidrs": ["callers"]}, "serviceClientCidrs"),
        ({"serviceTlsSecret": "Not_A_Name"}, "serviceTlsSecret"),
    ],
)
def test_a_service_that_could_not_work_or_would_be_open_is_refused(change: dict[str, object], key: str):
    with pytest.raises(InputError) as caught:
        load(with_service(**change), "dev")
    assert keys_of(caught.value) == {key}
    assert all(problem.remedy for problem in caught.value.problems)


def test_everything_wrong_with_a_service_is_said_at_once():
    with pytest.raises(InputError) as caught:
        load(
            with_service(sandboxImage="", oidcIssuer="", oidcAudience="", serviceImage=f"x.io/a@sha256:{'a' * 64}"),
            "dev",
        )
    assert keys_of(caught.value) == {"sandboxImage", "serviceImage", "oidcIssuer"}


def test_another_registry_may_hold_the_service_s_image_once_it_is_allowed():
    other = ["registry.example.com", OWN]
    image = f"registry.example.com/control@sha256:{'a' * 64}"
    assert load(with_service(allowedRegistries=other, serviceImage=image), "dev").service_image == image


SIX_MISTAKES = """config:
  ringfence:accountId: "12"
  ringfence:profile: huge
  ringfence:vpcCidr: 8.8.8.0/24
  ringfence:availabilityZones: [eu-west-1a, us-east-1b]
  ringfence:vaultReplicas: 2
  ringfence:regoin: us-east-1
  ringfence:clusterAdmins: ["arn:aws:iam::123456789012:role/operators"]
"""


def test_six_mistakes_print_six_problems_with_remedies_and_exit_2(tmp_path: Path):
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "Pulumi.bad.yaml").write_text(SIX_MISTAKES)
    command = [sys.executable, "-m", "ringfence.cli", "settings", "check", "--stack", "bad", "--project", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "6 problems" in done.stderr
    assert done.stderr.count("remedy: ") == 6
    assert "Traceback" not in done.stderr
    for line, key in enumerate(("accountId", "profile", "vpcCidr", "availabilityZones", "vaultReplicas", "regoin"), 2):
        assert f"Pulumi.bad.yaml:{line}: " in done.stderr, key


@pytest.mark.parametrize(
    "text", ["config: [1]", "config: {a: &x [*x]}", "- 1", ":\n  : [", "config: !!python/object:os.system x"]
)
def test_a_stack_file_that_is_not_a_mapping_of_plain_values_is_refused(tmp_path: Path, text: str):
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "Pulumi.bad.yaml").write_text(text)
    with pytest.raises(InputError):
        load_stack(tmp_path, "bad")


@pytest.mark.parametrize("stack", ["local", "dev", "prod"])
def test_the_shipped_stacks_have_no_problem_but_the_account(stack: str):
    try:
        load_stack(ROOT, stack)
    except InputError as error:
        assert stack != "local"
        assert keys_of(error) == {"accountId"}


@pytest.mark.parametrize("service", ["ec2", "ecr.api", "ecr.dkr", "eks-auth"])
def test_an_interface_endpoint_that_would_cut_sandbox_nodes_off_is_refused_and_says_why(service):
    with pytest.raises(InputError) as caught:
        load(GOOD | {"ringfence:interfaceEndpoints": ["sts", service]}, "dev")
    (problem,) = caught.value.problems
    assert problem.key == "interfaceEndpoints" and problem.message.startswith(service)
    assert "proxy dials no address" in problem.remedy
