"""Runs tool calls in fresh sandboxes. So far: the manifests of one invocation's namespace."""
