// The contact sheet's style: light or dark as the reader's system is.
#pragma once

namespace thumbnailer {

inline constexpr const char* contact_sheet_style = R"css(
:root {
  color-scheme: light dark;
  --page: #f4f5f7; --card: #ffffff; --well: #eceef1; --line: #dde0e5; --text: #1d232b; --faint: #67717e;
  --bad: #b3261e; --bad-well: #fbeceb; --good: #1a7f4b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171b; --card: #1d2127; --well: #262b32; --line: #323841; --text: #e6e9ed; --faint: #98a2ae;
    --bad: #ff8a80; --bad-well: #35201f; --good: #6fcf97;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1500px; padding: 2.2rem 2rem 3rem; background: var(--page); color: var(--text);
       font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { margin: 0 0 1.2rem; font-size: 1.5rem; font-weight: 650; overflow-wrap: anywhere; }
h2 { margin: 2.4rem 0 1rem; font-size: 1.1rem; font-weight: 650; }
h2 .count { color: var(--faint); font-weight: 400; margin-left: .4em; }
.summary { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 1px; margin: 0;
           background: var(--card); border: 1px solid var(--line); border-radius: 12px; overflow: hidden; }
.summary div { box-shadow: 0 0 0 1px var(--line); padding: .85rem 1.1rem .95rem; }
.summary dt { color: var(--faint); font-size: .82rem; }
.summary dd { margin: .1rem 0 0; font-size: 1.45rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.summary dd small { display: block; font-size: .8rem; font-weight: 400; color: var(--faint); }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(210px, 1fr)); gap: 1.1rem; }
.grid.failed { grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); }
.card { margin: 0; display: flex; flex-direction: column; background: var(--card); border: 1px solid var(--line);
        border-radius: 12px; overflow: hidden; }
.view { display: flex; align-items: center; justify-content: center; height: 210px; padding: 12px;
        background: var(--well); }
.view img { max-width: 100%; max-height: 100%; border-radius: 3px; box-shadow: 0 1px 4px rgb(0 0 0 / .25); }
figcaption { padding: .65rem .85rem .8rem; }
.name { overflow-wrap: anywhere; font-weight: 550; }
.about { color: var(--faint); font-size: .85rem; font-variant-numeric: tabular-nums; }
.failed .card { border-color: color-mix(in srgb, var(--bad) 35%, var(--line)); }
.why { padding: .8rem .85rem; background: var(--bad-well); font-size: .92rem; overflow-wrap: anywhere; flex: 1; }
.why strong { display: block; color: var(--bad); margin-bottom: .2rem; }
.why p { margin: 0; white-space: pre-line; }
.why details { margin-top: .5rem; }
.why pre { margin: .4rem 0 0; max-height: 14rem; overflow: auto; font-size: .8rem; }
footer { margin-top: 2.4rem; color: var(--faint); font-size: .85rem; }
)css";

}  // namespace thumbnailer
