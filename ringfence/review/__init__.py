"""Permission review: what an environment grants, what was approved, and where the two differ.

`facts` is the common form that every source is brought into: a Pulumi resource (`extract`), a preview or a state
(`sources`), a live account (`live`) and the grant lockfile (`lockfile`). `compare` decides what changed by meaning.
"""
