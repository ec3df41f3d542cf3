"""What the program refuses before it registers anything, in the engine's own output."""

from __future__ import annotations

import pytest

from tests.environment.conftest import Standing

pytestmark = pytest.mark.engine


def test_a_stack_whose_state_belongs_to_another_account_is_refused(standing: Standing):
    # The images of the local stack are in its own account and region, which the settings would refuse first.
    foreign = standing.engine(accountId="999999999999", sandboxImage="", serviceImage="").preview()
    assert foreign.exit_code != 0
    assert "the state belongs to '123456789012'" in foreign.stdout + foreign.stderr
    assert foreign.changed_steps == ()
    assert standing.engine().preview().exit_code == 0


def test_a_stack_whose_state_belongs_to_another_region_is_refused(standing: Standing):
    zones = ["eu-west-1a", "eu-west-1b"]
    moved = standing.engine(region="eu-west-1", availabilityZones=zones, sandboxImage="", serviceImage="").preview()
    assert moved.exit_code != 0
    assert "the state belongs to 'us-east-1'" in moved.stdout + moved.stderr


def test_bad_settings_end_the_program_with_every_problem_and_no_traceback(standing: Standing):
    refused = standing.engine(profile="huge", vaultReplicas=2, vpcCidr="8.8.8.0/24").preview()
    said = refused.stdout + refused.stderr
    assert refused.exit_code != 0
    assert "3 problems" in said
    assert "Traceback" not in said
