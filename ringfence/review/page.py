"""A report as one HTML page that loads nothing from anywhere."""

from __future__ import annotations

from html import escape

from ringfence.review import wording
from ringfence.review.changes import Change, request_text, slot_text
from ringfence.review.report import KIND_TEXT, Report, headline

_STYLE = """
:root{--ink:#1b1f24;--paper:#fff;--line:#d6dbe1;--soft:#f4f6f8;--open:#b42318;--done:#1a7f37;--mute:#57606a}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ed;--paper:#14171b;--line:#31373f;--soft:#1d2127;--open:#ff8a80;
--done:#6fd08c;--mute:#9aa4af}}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:60rem;margin:0 auto;padding:1.5rem}
h1{font-size:1.5rem;margin:0 0 .25rem}h2{font-size:1.15rem;margin:2rem 0 .5rem}h3{font-size:1rem;margin:0}
p{margin:.35rem 0}.lead{font-size:1.1rem;font-weight:600}.mute{color:var(--mute);font-size:.875rem}
article{border:1px solid var(--line);border-left:4px solid var(--open);border-radius:6px;padding:.75rem 1rem;margin:.75rem 0}
article.done{border-left-color:var(--done)}article.less{border-left-color:var(--line)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1rem;margin:.5rem 0 0}
dt{color:var(--mute)}dd{margin:0;min-width:0}
code{background:var(--soft);border-radius:4px;padding:.1em .3em;font:.875em ui-monospace,monospace;overflow-wrap:anywhere}
.state{font-weight:600;color:var(--open)}.done .state{color:var(--done)}.less .state{color:var(--mute)}
@media (max-width:40rem){dl{grid-template-columns:1fr}dt{margin-top:.5rem}}
"""


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _row(label: str, value: str) -> str:
    return f"<dt>{label}</dt><dd>{value}</dd>"


def _article(report: Report, change: Change) -> str:
    approver = report.approved.get(change.place)
    kind = "less" if not change.needs_review else "done" if approver else "open"
    state = KIND_TEXT[change.kind] if kind == "less" else f"approved by {approver}" if approver else "not approved"
    place = report.location(change)
    rows = []
    if change.request:
        rows.append(_row("Witness", _code(request_text(change.request))))
    rows += [_row("Added", _code(item.statement)) for item in change.additions]
    rows += [
        _row("Escalation path", f"{_code(item.path.name)} {escape(item.id)}, {escape(item.path.category)}")
        for item in change.escalations
    ]
    if change.needs_review:
        rows += [
            _row("Why it matters", escape(wording.why(change)) + "."),
            _row("Fix", escape(wording.fix(change)) + "."),
            _row("Approve", escape(wording.approve(change)) + "."),
        ]
    rows.append(_row("Where", _code(f"{place.file}:{place.line}")))
    title = f"{_code(change.subject)} {escape(slot_text(change.slot))} {escape(change.key)}"
    return (
        f'<article class="{kind}"><h3>{title}</h3><p class="state">{escape(KIND_TEXT[change.kind])}; {escape(state)}</p>'
        f"<p>{escape(change.message)}.</p><dl>{''.join(rows)}</dl></article>"
    )


def as_html(report: Report) -> str:
    """The whole report as one page."""
    sections = []
    if report.to_review:
        sections.append("<h2>To review</h2>" + "".join(_article(report, change) for change in report.to_review))
    if report.removed:
        sections.append("<h2>No longer granted</h2>" + "".join(_article(report, change) for change in report.removed))
    if report.unused:
        items = "".join(
            f"<li>{_code(item.subject)}: {_code(item.action)} of {_code(item.policy)}</li>" for item in report.unused
        )
        sections.append(f"<h2>Granted but not used</h2><ul>{items}</ul>")
    if report.unread:
        sections.append(
            "<h2>Not read</h2><ul>" + "".join(f"<li>{escape(item)}</li>" for item in report.unread) + "</ul>"
        )
    versions = ", ".join(f"{name} {version}" for name, version in sorted(report.versions.items()))
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(report.title)}</title><style>{_STYLE}</style></head><body><main>"
        f'<h1>{escape(report.title)}</h1><p class="lead">{escape(headline(report))}</p>'
        f'<p class="mute">{escape(report.baseline)} → {escape(report.candidate)}, {report.day.isoformat()}. '
        f"Data: {escape(versions)}.</p>{''.join(sections)}</main></body></html>\n"
    )
