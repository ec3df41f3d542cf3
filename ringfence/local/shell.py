"""The embedded target for a user's own shell: variables, and a `pulumi` that leaves the project's files alone."""

from __future__ import annotations

import shlex
from pathlib import Path

from ringfence.local import target
from ringfence.local.stack import Engine
from ringfence.local.state import write_atomic

# The engine writes the salt of this machine's passphrase into the stack's configuration file, where another machine's
# would only be in the way; the state has it too. So the file is put back, unless the command was to change it; then only
# the salt is taken out again, unless the file has secrets of its own, which need it.
_WRAPPER = """#!/bin/sh
# pulumi, keeping this machine's encryption salt out of the project's configuration file.
config={config}
forget_salt() {{
    if [ -f "$config" ] && grep -q '^encryptionsalt:' "$config" && ! grep -q 'secure:' "$config"; then
        grep -v '^encryptionsalt:' "$config" > "$kept"
        cat "$kept" > "$config"
    fi
}}
changes=no
for word in "$@"; do
    case "$word" in config | stack | new | -c | -c=* | --config | --config=*) changes=yes ;; esac
done
kept=$(mktemp) || exit 1
forget_salt
existed=no
[ -f "$config" ] && existed=yes && cat "$config" > "$kept"
trap : INT
{pulumi} "$@"
code=$?
if [ "$changes" = yes ]; then
    forget_salt
elif [ $existed = no ]; then
    rm -f "$config"
elif [ -f "$config" ] && ! cmp -s "$kept" "$config"; then
    cat "$kept" > "$config"
fi
rm -f "$kept"
exit $code
"""


def _bin(engine: Engine) -> Path:
    return engine.home.root / "bin"


def exports(engine: Engine) -> dict[str, str]:
    """Variables to export, PATH apart. Writes the provider wrappers and the `pulumi` wrapper, and makes the stack."""
    engine.init()
    pulumi = shlex.quote(str(engine.tools.path("pulumi")))
    script = _WRAPPER.format(config=shlex.quote(str(engine.source_config)), pulumi=pulumi)
    write_atomic(_bin(engine) / "pulumi", script, mode=0o755)
    return target.variables(engine.home)


def folders(engine: Engine) -> list[str]:
    """Folders to put first on PATH."""
    return [str(_bin(engine)), *target.search_path(engine.home, engine.tools)]
