// Draws the diagrams of a page; no page is fetched for it.
const dark = document.body.getAttribute("data-md-color-scheme") === "slate";
mermaid.initialize({ startOnLoad: false, theme: dark ? "dark" : "neutral" });
mermaid.run({ querySelector: ".diagram" });
