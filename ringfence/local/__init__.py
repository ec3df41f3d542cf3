"""The embedded target: the real engine, a real Kubernetes control plane and AWS-shaped APIs on this machine."""
