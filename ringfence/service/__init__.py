"""`ringfence serve`: agent tasks over HTTP, for callers that prove who they are.

Trust zone: control side; every byte of a request is hostile until checked.
"""
