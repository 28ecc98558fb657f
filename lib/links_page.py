"""The page that align.py --html writes: sentence pairs, lines between their words, and the evidence of each line."""

import json

PAGE = """<!doctype html>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Word alignments</title>
<style>
body { font: 16px/1.5 system-ui, "Noto Sans", "Noto Sans Devanagari", "Noto Sans CJK SC", sans-serif;
  margin: 2rem; color: #222; background: #fff }
h1 { font-size: 1.3rem } .note { color: #666 }
.pair { position: relative; overflow-x: auto; overflow-y: hidden; padding: .6rem 0 .3rem;
  border-bottom: 1px solid #ddd }
.row { display: flex; gap: .3rem; width: max-content; position: relative } .row + .row { margin-top: 3.2rem }
.row span { padding: .05rem .4rem; border-radius: .3rem; background: #f1f3f6; white-space: nowrap }
.number, .evidence { color: #777; font-size: .8rem } .evidence { min-height: 1.2rem }
svg { position: absolute; left: 0; top: 0; pointer-events: none }
line { stroke: #4a7fb5; stroke-width: 1.6; pointer-events: stroke }
line.wrong { stroke: #d2554a } line.missed { stroke: #999; stroke-dasharray: 4 4 }
.on { background: #ffe08a !important } line.on { stroke-width: 3.5 }
</style>
<h1>Word alignments</h1>
<p class="note">NOTE</p>
<div id="pairs"></div>
<script>
const pairs = DATA;
const box = document.getElementById("pairs"), svgns = "http://www.w3.org/2000/svg";
const add = (parent, kind, text) => {
  const child = parent.appendChild(document.createElement("div")); child.className = kind; child.textContent = text;
  return child };
pairs.forEach((pair, n) => {
  const div = add(box, "pair", ""); add(div, "number", n + 1);
  const rows = pair.words.map(words => { const row = add(div, "row", ""); row.dir = "auto";
    return words.map(word => {
      const span = row.appendChild(document.createElement("span")); span.textContent = word; return span }) });
  const told = add(div, "evidence", ""), svg = div.appendChild(document.createElementNS(svgns, "svg"));
  const links = pair.links.map(([i, j, kind, evidence]) => {
    const line = svg.appendChild(document.createElementNS(svgns, "line")); line.setAttribute("class", kind);
    const link = {i, j, line, kind, evidence};
    line.onmouseenter = () => show([link], true); line.onmouseleave = () => show([link], false); return link });
  const inWords = ({i, j, kind, evidence}) => pair.words[0][i] + " – " + pair.words[1][j] + ": " + (evidence
    ? Object.entries(evidence).map(([name, value]) => name + " " + value.toFixed(2)).join(" + ") : kind || "linked");
  const show = (some, on) => { told.textContent = on ? some.map(inWords).join("; ") : "";
    some.forEach(({i, j, line}) => [line, rows[0][i], rows[1][j]].forEach(part => part.classList.toggle("on", on))) };
  rows.forEach((row, side) => row.forEach((span, k) => {
    const light = on => {
      show(links.filter(link => (side ? link.j : link.i) === k), on); span.classList.toggle("on", on) };
    span.onmouseenter = () => light(true); span.onmouseleave = () => light(false) }));
  pair.draw = () => { const base = svg.getBoundingClientRect();
    svg.setAttribute("width", div.scrollWidth); svg.setAttribute("height", div.scrollHeight);
    links.forEach(({i, j, line}) => {
      const a = rows[0][i].getBoundingClientRect(), b = rows[1][j].getBoundingClientRect();
      line.setAttribute("x1", a.left + a.width / 2 - base.left); line.setAttribute("y1", a.bottom - base.top + 2);
      line.setAttribute("x2", b.left + b.width / 2 - base.left); line.setAttribute("y2", b.top - base.top - 2) }) };
});
const draw = () => pairs.forEach(pair => pair.draw());
addEventListener("resize", draw); document.fonts.ready.then(draw); draw();
</script>
"""


def links_page(shown, total, name):
    """Return an HTML page of pairs with lines between the words.

    shown: the first of `total` pairs of the file `name`, each (source words, target words, links, gold or None,
    evidence); evidence: for each link {kind: value}, what it was picked by.
    """
    data = []
    for source, target, links, gold, evidence in shown:
        lines = [(*link, "wrong" if gold and link not in gold[1] else "", why) for link, why in zip(links, evidence)]
        lines += [(i, j, "missed", None) for i, j in sorted((gold[0] if gold else set()) - set(links))]
        data.append({"words": [source, target], "links": lines})
    text = f"{name}: the first {len(shown):,} of {total:,} pairs. Point at a word or a line to see its evidence."
    if any(gold for *_, gold, _ in shown):
        text += " Blue: in the gold alignment. Red: not in it. Dashed: a sure link that was not found."
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    before, after = PAGE.replace("NOTE", text, 1).rsplit("DATA", 1)
    data = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")  # a `<` in a word must not end the script
    return before + data + after
