"""Wrappers of frameworks' tools and models: every call of a wrapped tool passes the executor's gate and budgets.

Each module imports its framework when it is imported itself; none is part of the image.
"""
