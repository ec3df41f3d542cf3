"""The image repositories: tags stay, pushes are scanned, other accounts are kept out."""

from __future__ import annotations

import json

from components.registry import IMAGES, Registry, RegistryArgs
from ringfence.iam.request import Principal

KIND = "aws:ecr/repository:Repository"


def stood_up(record, names, preview: bool = False, **changes):
    def program():
        made = Registry("registry", RegistryArgs(names, **changes))
        return {"urls": made.urls, "repositories": made.repositories}

    return record(program, preview=preview)


def test_there_is_one_repository_an_image_and_its_address_is_known_at_preview(record, preview, names):
    recording = stood_up(record, names, preview)
    assert IMAGES == ("agent-runtime", "control")
    assert {made["name"] for made in recording.of_type(KIND)} == {
        "ringfence-test/agent-runtime",
        "ringfence-test/control",
    }
    host = "111122223333.dkr.ecr.us-east-1.amazonaws.com"
    assert recording.outputs["urls"] == {image: f"{host}/ringfence-test/{image}" for image in IMAGES}
    assert recording.unparented() == []


def test_tags_stay_pushes_are_scanned_and_no_key_is_paid_for(record, names):
    recording = stood_up(record, names)
    for made in recording.of_type(KIND):
        assert made["imageTagMutability"] == "IMMUTABLE"
        assert made["imageScanningConfiguration"] == {"scanOnPush": True}
        assert made["encryptionConfigurations"] == [{"encryptionType": "AES256"}]
    assert not [kind for kind in recording.types() if kind.startswith("aws:kms/")]


def test_images_are_kept_unless_it_is_said_that_they_may_go(record, names):
    for keep in (True, False):
        for made in stood_up(record, names, keep=keep).of_type(KIND):
            assert made.options.protect is keep and made["forceDelete"] is not keep


def test_nobody_of_another_account_pulls_or_pushes(record, preview, names, resource_permits):
    recording = stood_up(record, names, preview)
    allow = {"Effect": "Allow", "Principal": "*", "Action": "ecr:*"}
    own = Principal("AWS", "arn:aws:sts::111122223333:assumed-role/ringfence-test-sandbox-node/i-1")
    foreign = Principal("AWS", "arn:aws:sts::444455556666:assumed-role/ringfence-test-sandbox-node/i-1")
    policies = recording.of_type("aws:ecr/repositoryPolicy:RepositoryPolicy")
    assert {made["repository"] for made in policies} == set(recording.outputs["repositories"].values())
    for made in policies:
        document = json.loads(made["policy"])
        # ECR takes no Resource in a repository's policy; to the evaluator, the statement is about the repository asked for.
        document["Statement"] = [{**item, "Resource": "*"} for item in (*document["Statement"], allow)]
        for action in ("ecr:BatchGetImage", "ecr:PutImage"):
            assert resource_permits(json.dumps(document), own, action)
            assert not resource_permits(json.dumps(document), foreign, action)
            assert not resource_permits(json.dumps(document), Principal("Anonymous"), action)


def test_what_cut_pushes_left_expires_and_what_is_tagged_stays(record, names):
    recording = stood_up(record, names)
    for made in recording.of_type("aws:ecr/lifecyclePolicy:LifecyclePolicy"):
        (rule,) = json.loads(made["policy"])["rules"]
        assert rule["selection"]["tagStatus"] == "untagged" and rule["action"] == {"type": "expire"}
