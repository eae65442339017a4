"""Styles of the HTML report: one column, light and dark by the reader's setting, no outside fonts or scripts."""

STYLE = """
:root { color-scheme: light dark;
  --ground: #f6f7f9; --card: #ffffff; --ink: #1b1f24; --quiet: #5d6670; --line: #dfe3e8; --accent: #0072b2;
  --good: #00734f; --bad: #b54708; --mark: #fff4d6; --mark-ink: #7a4b00; --win: #e9f4fb; }
@media (prefers-color-scheme: dark) { :root {
  --ground: #0f1216; --card: #181c22; --ink: #e8ebef; --quiet: #9aa4af; --line: #2c333c; --accent: #56b4e9;
  --good: #3ecf9a; --bad: #ff9d5c; --mark: #3a2e10; --mark-ink: #f3c76b; --win: #12283a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 1360px; margin: 0 auto; padding: 32px 24px 64px; }
header p { margin: 4px 0 0; color: var(--quiet); }
h1 { margin: 0; font-size: 28px; letter-spacing: -.01em; }
h2 { margin: 0 0 4px; font-size: 18px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 20px 22px;
  margin-top: 20px; }
section > p { margin: 0 0 14px; color: var(--quiet); max-width: 95ch; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 14px; margin-top: 20px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 14px 18px; }
.tile b { display: block; font-size: 32px; line-height: 1.15; font-weight: 650; font-variant-numeric: tabular-nums; }
.tile span { color: var(--quiet); font-size: 13px; }
.scroll { overflow-x: auto; }
.scroll + .scroll { margin-top: 22px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 8px 10px; text-align: right; border-bottom: 1px solid var(--line); vertical-align: middle; }
th { font-weight: 600; font-size: 13px; color: var(--quiet); vertical-align: bottom; }
td:first-child, tr:first-child th:first-child { text-align: left; }
th[colspan] { text-align: center; }
tr:last-child td { border-bottom: 0; }
tr.winner td { background: var(--win); }
td small { display: block; color: var(--quiet); font-size: 12.5px; max-width: 44ch; }
td.top { font-weight: 700; }
th small { font-weight: 400; }
tr.bound td { border-top: 2px dashed var(--quiet); }
table.heat { width: auto; }
table.heat th, table.heat td { padding: 4px 7px; font-size: 12.5px; border-bottom: 1px solid var(--card); }
table.heat td { text-align: center; min-width: 38px; border-left: 1px solid var(--card); }
table.heat td:first-child { text-align: left; white-space: nowrap; position: sticky; left: 0; background: var(--card); }
table.heat .first { border-left: 12px solid var(--card); }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 8px; }
.crown { background: var(--accent); color: var(--card); border-radius: 999px; font-size: 11.5px; font-weight: 650;
  padding: 1px 9px; margin-left: 8px; white-space: nowrap; }
.pixels, .tile span.pixels { background: var(--mark); color: var(--mark-ink); border-radius: 999px; font-size: 11.5px;
  font-weight: 600;
  padding: 1px 8px; white-space: nowrap; }
.up { color: var(--good); } .down { color: var(--bad); }
.bar { display: block; height: 5px; border-radius: 3px; margin-top: 3px; margin-left: auto; }
figure { margin: 0 0 4px; } figure svg { width: 100%; height: auto; display: block; }
figcaption { color: var(--quiet); font-size: 13px; margin: 0 0 6px; }
.picture { background: #fff; border-radius: 8px; padding: 8px; overflow-x: auto; margin-bottom: 10px; }
.picture img { display: block; margin: 0 auto; max-width: 100%; height: auto; }
.picture.wide img { max-width: none; }
.time { display: grid; grid-template-columns: minmax(160px, max-content) 1fr max-content; gap: 6px 14px;
  align-items: center; }
.time i { display: block; height: 12px; border-radius: 4px; background: var(--accent); min-width: 2px; }
.time span:nth-child(3n) { text-align: right; font-variant-numeric: tabular-nums; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); gap: 2px 28px; margin: 0; }
.pairs div { display: flex; justify-content: space-between; gap: 16px; border-bottom: 1px solid var(--line);
  padding: 4px 0; }
.pairs dt { color: var(--quiet); } .pairs dd { margin: 0; text-align: right; overflow-wrap: anywhere; }
details summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; font: 12.5px/1.45 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  margin: 12px 0 0; }
@media print { section, .tile { break-inside: avoid; } }
"""
