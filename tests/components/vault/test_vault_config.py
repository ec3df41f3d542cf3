"""What the store is told: golden files for both distributions and sizes, and the scripts run by a real shell."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from components import vault_config as config
from components.vault_config import OPENBAO, VAULT

KEY = "alias/ringfence/test/unseal"
BUCKET = "ringfence-test-vault-snapshots-111122223333-us-east-1"


def files(distribution: str, replicas: int) -> dict[str, str]:
    made = config.config_files(distribution, replicas, "us-east-1", KEY)
    return made | config.snapshot_files(distribution, BUCKET)


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("distribution", [OPENBAO, VAULT])
def test_the_files_are_the_reviewed_ones_and_their_json_parses(golden, distribution, replicas):
    for name, text in files(distribution, replicas).items():
        if name.endswith(".json"):
            json.loads(text)
        golden(f"vault/{distribution}-{replicas}/{name}", text)


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("distribution", [OPENBAO, VAULT])
def test_every_listener_has_tls_and_the_seal_is_kms(distribution, replicas):
    server = json.loads(files(distribution, replicas)["server.json"])
    for listener in server["listener"]:
        assert listener["tcp"]["tls_min_version"] == "tls13"
        assert listener["tcp"]["tls_cert_file"] and "tls_disable" not in listener["tcp"]
    assert server["seal"] == {"awskms": {"region": "us-east-1", "kms_key_id": KEY}}
    assert server["ui"] is False
    peers = server["storage"]["raft"].get("retry_join", [])
    assert [p["leader_api_addr"].startswith("https://vault-") for p in peers] == [True] * (
        replicas if replicas > 1 else 0
    )
    assert all(p["leader_ca_cert_file"] == config.CA_FILE for p in peers)


def audit_devices(distribution: str) -> list[dict]:
    if distribution == OPENBAO:
        stanzas = json.loads(files(OPENBAO, 1)["server.json"])["audit"]
        return [device for stanza in stanzas for kind in stanza.values() for device in kind.values()]
    return [dict(r.data) for r in config.first_requests(VAULT) if r.path.startswith("sys/audit/")]


@pytest.mark.parametrize("distribution", [OPENBAO, VAULT])
def test_every_request_is_audited_to_standard_output_with_values_hashed(distribution):
    assert [d["options"] for d in audit_devices(distribution)] == [{"file_path": "stdout", "log_raw": "false"}]


@pytest.mark.parametrize("distribution", [OPENBAO, VAULT])
def test_policies_are_the_least(distribution):
    rules = {
        name: dict(re.findall(r'path "([^"]+)" \{\s*capabilities = (\[[^\]]*\])', text))
        for name, text in config.policies(distribution).items()
    }
    assert rules["broker"] == {"kv/data/tools/*": '["read"]'}
    assert rules["snapshot"] == {"sys/storage/raft/snapshot": '["read"]'}
    assert "read" not in json.loads(rules["operator"]["kv/data/tools/*"])
    assert ("sys/rotate/recovery/init" in rules["operator"]) is (distribution == OPENBAO)
    assert not any(path in ("*", "sys/*", "kv/*") for policy in rules.values() for path in policy)


@pytest.mark.parametrize("distribution", [OPENBAO, VAULT])
def test_each_role_is_bound_to_one_service_account_audience_and_policy(distribution):
    roles = {r.path.rpartition("/")[2]: r.data for r in config.first_requests(distribution) if "/role/" in r.path}
    bound = {
        name: (data["bound_service_account_namespaces"], data["bound_service_account_names"], data["token_policies"])
        for name, data in roles.items()
    }
    assert bound == {
        "broker": (["ringfence-system"], ["runner"], ["broker"]),
        "snapshot": (["ringfence-vault"], ["vault-snapshot"], ["snapshot"]),
        "operator": (["ringfence-vault"], ["vault-operator"], ["operator"]),
    }
    assert all(data["audience"] == "vault" and data["token_no_default_policy"] for data in roles.values())


def test_openbao_does_what_the_bootstrap_script_of_vault_does():
    def paths(distribution: str) -> list[str]:
        return [r.path for r in config.first_requests(distribution) if not r.path.startswith("sys/audit/")]

    first = json.loads(config.initialize_config())["initialize"][0]["ringfence"]["request"]
    assert [request["path"] for step in first for request in step.values()] == paths(OPENBAO) == paths(VAULT)
    assert re.findall(r"^vault write (\S+) -", config.bootstrap_script(), re.MULTILINE)[1:] == paths(VAULT)


class Shell:
    """Runs a rendered script in a real shell, with the server's program replaced by `program` (shell text), which logs
    its arguments; paths of the pod are moved under `root`."""

    def __init__(self, root: Path):
        self.root = root
        self.log = root / "calls"
        self.log.touch()

    def run(
        self, script: str, programs: dict[str, str], stdin: str = "", **env: str
    ) -> subprocess.CompletedProcess[str]:
        bin_ = self.root / "bin"
        bin_.mkdir(exist_ok=True)
        for name, body in programs.items():
            program = bin_ / name
            program.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.log}\n{body}\n')
            program.chmod(program.stat().st_mode | stat.S_IXUSR)
        folders = (config.DATA_DIR, config.SNAPSHOT_DIR, "/tmp")
        for folder in folders:
            (self.root / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
        script = re.sub(rf"({'|'.join(folders)})/", lambda found: f"{self.root}{found[1]}/", script)
        return subprocess.run(
            ["/bin/sh", "-c", script], input=stdin, text=True, capture_output=True, timeout=300, check=False,
            env={"PATH": f"{bin_}:{os.environ['PATH']}", "STATE": str(self.root / "state"), **env},
        )  # fmt: skip

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def shell(tmp_path) -> Shell:
    return Shell(tmp_path)


def peers_say(*answers: int) -> dict[str, str]:
    """A `bao` whose `init -status` exits with `answers`, one a call, the last one for ever; `sleep` takes no time."""
    script = "\n".join(
        [
            'case "$1" in operator) ;; *) exit 0 ;; esac',
            'n=$(cat "$STATE" 2>/dev/null || echo 0); echo $((n + 1)) > "$STATE"',
            'case "$n" in',
            *(f"{index}) exit {answer} ;;" for index, answer in enumerate(answers)),
            f"*) exit {answers[-1]} ;;" if answers else "*) exit 9 ;;",
            "esac",
        ]
    )
    return {"bao": script, "sleep": ":"}


def test_the_first_replica_sets_the_store_up_once_all_peers_say_that_it_is_not(shell):
    assert shell.run(config.start_script(OPENBAO, 3), peers_say(1, 1, 2, 1, 2), POD_NAME="vault-0").returncode == 0
    assert shell.calls()[-1] == "bao server -config=/etc/vault/server.json -config=/etc/vault/initialize.json"
    asked = [call for call in shell.calls() if "init -status" in call]
    assert len(asked) == 5 and "vault-1" in asked[2] and "vault-2" in asked[4]


@pytest.mark.parametrize("answers", [(0, 2), (2, 0)])
def test_a_first_replica_that_lost_its_disk_joins_instead_of_starting_a_second_store(shell, answers):
    shell.run(config.start_script(OPENBAO, 3), peers_say(*answers), POD_NAME="vault-0")
    assert shell.calls()[-1] == "bao server -config=/etc/vault/server.json"


def test_a_first_replica_with_data_starts_although_no_peer_answers(shell):
    data = shell.root / config.DATA_DIR.lstrip("/")
    data.mkdir(parents=True)
    (data / "vault.db").touch()
    shell.run(config.start_script(OPENBAO, 3), peers_say(1), POD_NAME="vault-0")
    assert shell.calls()[-1] == "bao server -config=/etc/vault/server.json"


def test_only_the_first_replica_of_openbao_ever_sets_the_store_up(shell):
    shell.run(config.start_script(OPENBAO, 3), peers_say(2), POD_NAME="vault-1")
    shell.run(config.start_script(VAULT, 3), {"vault": ""}, POD_NAME="vault-0")
    assert shell.calls() == ["bao server -config=/etc/vault/server.json", "vault server -config=/etc/vault/server.json"]


def test_a_single_replica_sets_itself_up(shell):
    shell.run(config.start_script(OPENBAO, 1), peers_say(), POD_NAME="vault-0")
    assert shell.calls() == ["bao server -config=/etc/vault/server.json -config=/etc/vault/initialize.json"]


ROOT_TOKEN, RECOVERY = "hvs.THEROOTTOKEN", ("cGdwLWtleS1vbmU=", "cGdwLWtleS10d28=", "cGdwLWtleS10aHJlZQ==")
MADE = json.dumps(
    {
        "unseal_keys_b64": [],
        "unseal_keys_hex": [],
        "unseal_shares": 1,
        "unseal_threshold": 1,
        "recovery_keys_b64": list(RECOVERY),
        "recovery_keys_hex": ["aa", "bb", "cc"],
        "recovery_keys_shares": 3,
        "recovery_keys_threshold": 2,
        "root_token": ROOT_TOKEN,
    },
    indent=2,
)
FAKE_VAULT = f"""\
case "$1 $2 $3" in
  "operator init -status") exit "${{SET_UP:-2}}" ;;
  "operator init -format=json") cat <<'MADE'
{MADE}
MADE
  ;;
  "write $FAIL -") exit 1 ;;
  write*) [ "$VAULT_TOKEN" = {ROOT_TOKEN} ] || exit 3; cat >> "$STATE" ;;
  token*) [ "$VAULT_TOKEN" = {ROOT_TOKEN} ] || exit 3 ;;
esac"""
KEYS = "a2V5LW9uZQ==\na2V5LXR3bw==\na2V5LXRocmVl"


def test_bootstrap_sets_vault_up_and_revokes_the_root_token_that_nobody_sees(shell):
    done = shell.run(config.bootstrap_script(), {"vault": FAKE_VAULT}, KEYS, FAIL="nothing")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == list(RECOVERY)
    init = next(call for call in shell.calls() if "-format=json" in call)
    assert "-recovery-shares=3 -recovery-threshold=2" in init and init.count(".asc") == 3
    assert shell.calls()[-1] == "vault token revoke -self"
    written = re.findall(r"^vault write (\S+)", "\n".join(shell.calls()), re.MULTILINE)
    assert written == [request.path for request in config.first_requests(VAULT)]
    assert written[0] == "sys/audit/stdout"
    assert ROOT_TOKEN not in done.stdout + done.stderr + "\n".join(shell.calls())
    assert not list((shell.root / "tmp").iterdir())


def test_a_bootstrap_that_fails_half_way_revokes_the_root_token_too(shell):
    done = shell.run(config.bootstrap_script(), {"vault": FAKE_VAULT}, KEYS, FAIL="sys/mounts/kv")
    assert done.returncode != 0
    assert shell.calls()[-1] == "vault token revoke -self"
    assert not any("role/broker" in call for call in shell.calls())
    assert done.stdout.splitlines() == list(RECOVERY)


@pytest.mark.parametrize(
    ("keys", "set_up", "says"), [("\n", "2", "no PGP public key"), (KEYS, "0", "set up already"), (KEYS, "1", "set up")]
)
def test_bootstrap_makes_no_recovery_key_in_clear_and_none_for_a_store_that_has_some(shell, keys, set_up, says):
    done = shell.run(config.bootstrap_script(), {"vault": FAKE_VAULT}, keys, SET_UP=set_up, FAIL="nothing")
    assert done.returncode != 0 and says in done.stderr and done.stdout == ""
    assert not any("-format=json" in call for call in shell.calls())


@pytest.mark.parametrize(("distribution", "binary", "variable"), [(OPENBAO, "bao", "BAO"), (VAULT, "vault", "VAULT")])
def test_a_snapshot_keeps_tokens_out_of_arguments_and_output(shell, distribution, binary, variable):
    program = f"""\
case "$1" in
  write) echo s.SNAPSHOTTOKEN ;;
  operator) [ "${variable}_TOKEN" = s.SNAPSHOTTOKEN ] || exit 1; echo data > "$5" ;;
esac"""
    done = shell.run(config.snapshot_script(distribution), {binary: program})
    assert done.returncode == 0, done.stderr
    assert "SNAPSHOTTOKEN" not in done.stdout + done.stderr + "\n".join(shell.calls())
    assert shell.calls()[0] == (
        f"{binary} write -field=token auth/kubernetes/login role=snapshot jwt=@/var/run/secrets/vault/token"
    )


def test_an_empty_or_failed_snapshot_is_not_uploaded(shell):
    assert shell.run(config.snapshot_script(OPENBAO), {"bao": "exit 1"}).returncode != 0
    assert (
        shell.run(config.snapshot_script(OPENBAO), {"bao": 'case "$1" in operator) : > "$5" ;; esac'}).returncode != 0
    )


def test_a_snapshot_never_replaces_another(shell):
    done = shell.run(config.upload_script(BUCKET), {"aws": ""})
    assert done.returncode == 0
    call = shell.calls()[0]
    assert re.search(r"--key raft/\d{4}/\d\d/\d\d/\d{6}Z\.snap ", call)
    assert "--if-none-match *" in call and f"--bucket {BUCKET} " in call
