"""One HTML page that stands alone: style inside, no script, no font, no image and no request to anywhere.

What does not belong here: the page's content.
"""

from __future__ import annotations

from collections.abc import Iterable

from tttab.text import html_text as escape

STYLE = """
:root{--ink:#1c2430;--soft:#5b6675;--paper:#fff;--card:#f5f7fa;--rule:#dde3ea;--icl:#0072b2;--ttt:#d55e00;
--all:#009e73;--other:#7a5195}
@media (prefers-color-scheme:dark){:root{--ink:#e8ecf1;--soft:#a3adba;--paper:#14181e;--card:#1d232b;
--rule:#333c47;--icl:#56b4e9;--ttt:#ff8c42;--all:#2fcf9f;--other:#b690d0}}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
color:var(--ink);background:var(--paper)
;max-width:1180px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:26px;margin:0 0 4px}h2{font-size:20px;margin:40px 0 8px;border-bottom:1px solid var(--rule);
padding-bottom:4px}h3{font-size:15px;margin:22px 0 6px}
p{max-width:78ch;margin:6px 0}.note,.lead{color:var(--soft)}.note{font-size:13px}
.tiles,.charts{display:flex;flex-wrap:wrap;gap:12px;margin:14px 0}
.tile{background:var(--card);border-radius:8px;padding:12px 16px;min-width:200px;flex:1}
.tile b{display:block;font-size:24px;font-weight:650}.tile span{color:var(--soft);font-size:13px}
.charts svg{background:var(--card);border-radius:8px;max-width:100%;height:auto}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:4px 10px;border-bottom:1px solid var(--rule);white-space:nowrap}
th{color:var(--soft);font-weight:600}.number{text-align:right}.text{text-align:left}
.legend{display:flex;flex-wrap:wrap;gap:18px;font-size:13px;color:var(--soft)}
.legend i{display:inline-block;width:18px;height:4px;border-radius:2px;margin-right:6px;vertical-align:middle}
svg text{fill:var(--ink);font-family:inherit}.title{font-size:13px;font-weight:600}
.tick,.axis,.label{font-size:10.5px}svg .tick,svg .axis{fill:var(--soft)}
.grid{stroke:var(--rule);stroke-width:1}.line{fill:none;stroke-width:2}.band{opacity:.16}
.line.icl{stroke:var(--icl)}.line.ttt{stroke:var(--ttt)}.line.all{stroke:var(--all);stroke-dasharray:5 4}
.line.zero{stroke:var(--soft);stroke-width:1;stroke-dasharray:3 3}.line.other{stroke:var(--other)}
.dot.icl,.band.icl,i.icl{fill:var(--icl);background:var(--icl)}.dot.ttt,.band.ttt,i.ttt{fill:var(--ttt);
background:var(--ttt)}.dot.all,i.all{fill:var(--all);background:var(--all)}.dot.other,i.other{fill:var(--other);
background:var(--other)}
@media print{body{max-width:none}.charts svg{break-inside:avoid}}
"""

NOTHING_FROM_OUTSIDE = "default-src 'none'; style-src 'unsafe-inline'"


def page(title: str, body: Iterable[str]) -> str:
    """Return the whole document; `body` holds fragments that are HTML already."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{NOTHING_FROM_OUTSIDE}">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{chr(10).join(body)}\n</body></html>\n"
    )


def tiles(items: Iterable[tuple[str, str]]) -> str:
    """Return a row of figures: (large text, what it is)."""
    cards = "".join(
        f'<div class="tile"><b>{escape(large)}</b><span>{escape(words)}</span></div>'
        for large, words in items
    )
    return f'<div class="tiles">{cards}</div>'


def charts(svgs: Iterable[str]) -> str:
    """Return charts side by side, wrapping where the page is narrow."""
    return f'<div class="charts">{"".join(svgs)}</div>'


def legend(items: Iterable[tuple[str, str]]) -> str:
    """Return a legend: (class of the colour, words)."""
    keys = "".join(f'<span><i class="{kind}"></i>{escape(words)}</span>' for kind, words in items)
    return f'<div class="legend">{keys}</div>'
