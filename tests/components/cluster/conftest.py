"""Names of one environment, a cluster and a pool as the stack would make them."""

from __future__ import annotations

import pytest

from ringfence.iam.document import parse
from ringfence.iam.evaluate import evaluate
from ringfence.iam.model import Permissions
from ringfence.iam.request import Request
from ringfence.names import Names


@pytest.fixture
def names() -> Names:
    return Names("ringfence", "test", "111122223333", "us-east-1")


@pytest.fixture
def computed():
    """What EKS and EC2 compute that components go on to use."""

    def properties(type_: str, name: str, inputs: dict) -> dict:
        if type_ == "aws:eks/cluster:Cluster":
            return {"endpoint": "https://ABC.gr7.us-east-1.eks.amazonaws.com", "certificateAuthority": {"data": "Q0E="}}
        if type_ == "aws:ec2/launchTemplate:LaunchTemplate":
            return {"latestVersion": 7}
        if type_ == "aws:eks/nodeGroup:NodeGroup":
            return {"resources": [{"autoscalingGroups": [{"name": f"eks-{inputs['nodeGroupName']}-0a1b"}]}]}
        return {}

    return properties


@pytest.fixture
def identity_of():
    """Whether one identity policy lets an action through, as IAM decides it."""

    def permits(policy: str, action: str, resource: str) -> bool:
        return evaluate(Permissions((parse(policy),)), Request(action, resource)).allowed

    return permits
