"""The image serves: the pod's own command line, in the image's root, as the pod's user, against the real API server with the
runner's own token, and an emulated AWS."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography.x509.oid import NameOID
from kubernetes import client

from components import service_manifests as manifests
from components.sandbox import Sandbox, SandboxArgs
from ringfence.broker.dynamodb_ledger import PARTITION_KEY, SORT_KEY, ledger_table
from ringfence.iam.tool_documents import broker_role_name
from ringfence.image import CONTROL, Builder
from ringfence.names import RUNNER_SERVICE_ACCOUNT, SYSTEM_NAMESPACE
from ringfence.runner.places import STATE_FOLDER
from ringfence.runner.unit_settings import GatewayAddress
from ringfence.service.project_files import project_files
from ringfence.settings import load
from tests.broker.conftest import server  # noqa: F401 (a fixture)
from tests.cluster.conftest import ApiServer, api_server  # noqa: F401 (a fixture)
from tests.cluster.test_sandbox_admission import Api
from tests.components.conftest import Recorder
from tests.runner import control
from tests.runner.conftest import cloud  # noqa: F401 (a fixture)
from tests.service.test_identity import certificate

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")]
SETTINGS = load(
    {"accountId": control.NAMES.account_id, "clusterAdmins": ["arn:aws:iam::123456789012:role/operators"]},
    control.NAMES.environment,
)
TOKEN_FOLDER = "var/run/secrets/kubernetes.io/serviceaccount"


@pytest.fixture(scope="module")
def token(api_server: ApiServer) -> str:  # noqa: F811
    """The runner's own, on a cluster with the sandbox component's objects."""
    api = Api(api_server.configuration)
    args = SandboxArgs(
        control.NAMES, [control.REGISTRY], image=control.IMAGE, gateway=GatewayAddress("172.20.0.20", 14000)
    )
    recording = Recorder()(lambda: Sandbox("sandbox", args) and None)
    for manifest in [dict(made.inputs) for made in recording.resources if made.type.startswith("kubernetes:")]:
        api.apply(manifest)
    core = client.CoreV1Api(api_server.client)
    asked = {"spec": {"audiences": None, "expirationSeconds": 3600}}
    return core.create_namespaced_service_account_token(RUNNER_SERVICE_ACCOUNT, SYSTEM_NAMESPACE, asked).status.token


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    authority = certificate(folder, "ca", [(NameOID.COMMON_NAME, "ca")], ca=True)
    certificate(folder, "server", [(NameOID.COMMON_NAME, "server")], authority)
    user = [(NameOID.COMMON_NAME, "ana@example.com"), (NameOID.ORGANIZATION_NAME, "analysts")]
    certificate(folder, "ana", user, authority)
    return folder


@pytest.fixture
def root(tmp_path: Path, pki: Path, token: str, api_server: ApiServer) -> Path:  # noqa: F811
    """The image's root with what the pod's volumes hold."""
    folder = tmp_path / "root"
    subprocess.run(["cp", "-a", str(Builder(lambda line: None, kind=CONTROL).rootfs()), str(folder)], check=True)
    project = project_files(SETTINGS, control.catalog())
    pairs = {"tls.crt": "server.pem", "tls.key": "server.key", "ca.crt": "ca.pem"}
    tls = {name: (pki / source).read_text() for name, source in pairs.items()}
    for place, files in ((manifests.PROJECT_FOLDER, project), (manifests.TLS_FOLDER, tls)):
        for name, text in files.items():
            path = folder / place.lstrip("/") / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    (folder / TOKEN_FOLDER).mkdir(parents=True)
    (folder / TOKEN_FOLDER / "token").write_text(token)
    shutil.copy(api_server.configuration.ssl_ca_cert, folder / TOKEN_FOLDER / "ca.crt")
    (folder / TOKEN_FOLDER / "ca.crt").chmod(0o644)
    os.chown(folder / str(STATE_FOLDER).lstrip("/"), CONTROL.user, CONTROL.user)
    return folder


@dataclasses.dataclass
class Served:
    process: subprocess.Popen[str]
    root: Path
    pki: Path
    base: str

    def client(self, name: str = "") -> httpx.Client:
        context = ssl.create_default_context(cafile=str(self.pki / "ca.pem"))
        if name:
            context.load_cert_chain(self.pki / f"{name}.pem", self.pki / f"{name}.key")
        return httpx.Client(base_url=self.base, verify=context, trust_env=False, timeout=300)


@pytest.fixture
def served(root: Path, pki: Path, api_server: ApiServer, cloud, tmp_path) -> Iterator[Served]:  # noqa: F811
    """The service, once it is ready."""
    names = control.NAMES
    cloud.client("dynamodb").create_table(
        TableName=ledger_table(names), BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in (PARTITION_KEY, SORT_KEY)],
        KeySchema=[{"AttributeName": PARTITION_KEY, "KeyType": "HASH"}, {"AttributeName": SORT_KEY, "KeyType": "RANGE"}],
    )  # fmt: skip
    arn = names.iam_arn(f"role/{broker_role_name(names)}")
    own = cloud.client("sts").assume_role(RoleArn=arn, RoleSessionName="broker-1")["Credentials"]
    given = manifests.arguments(SETTINGS.environment, "https://id.example.com", "ringfence", 5, client_ca=True)
    spec = manifests.deployment_spec(control.IMAGE, given, names.region, {}, "tls", 5)
    (container,) = spec["template"]["spec"]["containers"]
    host, _, port = api_server.configuration.host.removeprefix("https://").partition(":")
    environment = dict(CONTROL.environment) | {item["name"]: item["value"] for item in container["env"]}
    environment |= {
        "KUBERNETES_SERVICE_HOST": host,
        "KUBERNETES_SERVICE_PORT": port,
        "AWS_ENDPOINT_URL": cloud.endpoint,
    }
    environment |= {
        "AWS_ACCESS_KEY_ID": own["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": own["SecretAccessKey"],
        "AWS_SESSION_TOKEN": own["SessionToken"],
    }
    log = tmp_path / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [*CONTROL.command, *container["args"]], env=environment, stdin=subprocess.DEVNULL, stdout=stream,
            stderr=subprocess.STDOUT, text=True,
            preexec_fn=lambda: (os.chroot(root), os.chdir("/"), os.setgroups([]), os.setgid(CONTROL.user), os.setuid(CONTROL.user)),
        )  # fmt: skip
    made = Served(process, root, pki, f"https://127.0.0.1:{manifests.API_PORT}")
    try:
        ends = time.monotonic() + 60
        while not _ready(made):
            assert process.poll() is None and time.monotonic() < ends, log.read_text()
            time.sleep(0.2)
        yield made
    finally:
        process.kill()
        process.wait()


def _ready(made: Served) -> bool:
    try:
        with made.client() as asking:
            return asking.get("/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def test_the_image_serves_callers_that_prove_who_they_are_and_ends_when_told(served: Served, api_server: ApiServer):  # noqa: F811
    with served.client() as nobody, served.client("ana") as ana:
        assert nobody.get("/healthz").status_code == 200
        assert nobody.get("/v1/tools").status_code == 401
        tools = ana.get("/v1/tools")
        assert tools.status_code == 200 and "s3-report-reader" in tools.text
        assert ana.get("/v1/invocations").status_code == 200
    # Its life is told at the API server, with the runner's own rights.
    leases = client.CoordinationV1Api(api_server.client).list_namespaced_lease(SYSTEM_NAMESPACE).items
    assert leases
    assert (served.root / str(STATE_FOLDER).lstrip("/") / "service/requests.sqlite").is_file()
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(30) == 0
