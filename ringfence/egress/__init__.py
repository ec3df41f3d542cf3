"""The egress proxy: what it lets through, its Envoy configuration, and the one that runs on this machine."""
