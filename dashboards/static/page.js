// Every page also works without this script, less conveniently.
"use strict";

// Forms that update while their inputs change (htmx): leave out unchanged inputs, so that links stay short.
document.addEventListener("htmx:configRequest", (event) => {
  for (const input of event.detail.elt.querySelectorAll("input[type=range]"))
    if (Number(input.value) === Number(input.defaultValue) && !input.dataset.asked) event.detail.parameters.delete(input.name);
});
document.addEventListener("input", ({ target }) => {
  const shown = target.type === "range" && document.getElementById(`${target.id}-value`);
  if (shown) shown.textContent = Number(Number(target.value).toPrecision(4));
  const line = target.type === "range" && document.getElementById(`${target.id}-line`);
  if (line) for (const end of ["x1", "x2"]) line.setAttribute(end, `${(100 * (target.value - target.min)) / (target.max - target.min || 1)}%`);
});

// If the navigation does not fit, scroll to the entry of this page.
document.querySelector("nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });

// A picture of a card or a sheet opens whole, one of a pair beside the other: ← → to those of the same card or page,
// + − to zoom, Escape to close. The two of a pair are zoomed and scrolled as one.
const PICTURES = ".card .shot img, .bench .shot img, .sheets img";
const viewer = document.createElement("dialog");
viewer.className = "viewer";
viewer.setAttribute("aria-label", "Picture");
viewer.innerHTML = '<div class="panes"></div><p></p><button type="button" aria-label="Close">Close</button>';
const [panes, caption, close] = viewer.children;
let shown = [], at = 0, zoom = 1;
const followed = new WeakSet();
function pane(image) {
  const whole = document.createElement("img");
  whole.src = image.getAttribute("src").replace(/\?side=\d+$/, image.src.includes("/pictures/") ? "?side=1024" : "");
  whole.alt = image.alt;
  whole.classList.toggle("tiny", image.classList.contains("tiny"));
  const frame = document.createElement("div");
  frame.tabIndex = 0; // so that keys can scroll it
  frame.append(whole);
  frame.addEventListener("scroll", () => {
    if (followed.delete(frame)) return; // it was moved by the other one, which may go further
    for (const other of panes.children) {
      if (other === frame) continue;
      const [left, top] = [other.scrollLeft, other.scrollTop];
      other.scrollTo(frame.scrollLeft, frame.scrollTop);
      if (other.scrollLeft !== left || other.scrollTop !== top) followed.add(other);
    }
  });
  return frame;
}
function look(step) {
  at = (at + step + shown.length) % shown.length;
  zoom = 1;
  panes.replaceChildren(...shown[at].map(pane));
  caption.textContent = `${shown[at].map((image) => image.alt).join(" | ")} (${at + 1} of ${shown.length})`;
}
function magnify(factor) {
  zoom = Math.min(16, Math.max(0.25, zoom * factor));
  for (const whole of panes.querySelectorAll("img")) {
    whole.style.width = ""; // small pictures are shown larger than they are: this is what a step starts from
    whole.style.width = `${Math.round(whole.getBoundingClientRect().width * zoom)}px`;
  }
}
function view(image) {
  document.body.append(viewer);
  const pairs = image.closest("[data-pair]") && [...document.querySelectorAll("[data-pair]")];
  const around = image.closest(".shots, .sheets, .cards") ?? document;
  shown = pairs ? pairs.map((pair) => [...pair.querySelectorAll("img")]) : [...around.querySelectorAll("figure img")].map((i) => [i]);
  shown = shown.filter((group) => group.length);
  at = shown.findIndex((group) => group.includes(image));
  look(0);
  viewer.showModal();
}
document.addEventListener("click", ({ target }) => {
  if (target.matches(PICTURES) && !target.closest("button, a")) view(target);
  else if (target === close || target === viewer) viewer.close();
});
viewer.addEventListener("keydown", (event) => {
  const acts = { ArrowLeft: () => look(-1), ArrowRight: () => look(1), "+": () => magnify(1.5), "-": () => magnify(1 / 1.5) };
  if (!acts[event.key]) return;
  event.preventDefault();
  event.stopPropagation();
  acts[event.key]();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !event.target.matches(PICTURES)) return;
  event.preventDefault(); // else the same key presses the button that has the focus next
  view(event.target);
});
function reachable() {
  for (const image of document.querySelectorAll(PICTURES)) image.tabIndex = 0;
}
reachable();
document.addEventListener("htmx:afterSwap", reachable);

// A key presses the button, or focuses the field, whose data-key names it; Escape leaves a field.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || viewer.open) return;
  if (event.target.matches("input, textarea, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const wanted = document.querySelector(`[data-key~="${CSS.escape(event.key)}"]`);
  if (!wanted) return;
  event.preventDefault();
  if (wanted.matches("input, textarea")) wanted.focus();
  else wanted.click();
});

// A heading of a table with several rows sorts it: numbers by size, the rest as text; empty cells stay last.
const size = (text) => Number(text.replace(/[,\s]|[%×]|pp$|^[<≥≤]/g, "").replace("−", "-"));
function sortable(table) {
  const body = table.tBodies[0], headings = [...(table.tHead?.rows[0]?.cells ?? [])];
  if (!body || body.rows.length < 3 || table.closest(".rates") || table.querySelector("thead button, [colspan]")) return;
  headings.forEach((heading, column) => {
    if (!heading.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = [...body.rows].map((row) => [row.cells[column]?.textContent.trim() ?? "", row]);
      const empty = ([text]) => text === "" || text === "–";
      const full = keyed.filter((k) => !empty(k));
      const numbers = full.every(([text]) => !Number.isNaN(size(text)));
      full.sort(([a], [b]) => (numbers ? size(a) - size(b) : a.localeCompare(b, undefined, { numeric: true })));
      if (down) full.reverse();
      body.append(...[...full, ...keyed.filter(empty)].map(([, row]) => row));
    });
  });
}
const sortAll = () => document.querySelectorAll("main .scroll table").forEach(sortable);
sortAll();
document.addEventListener("htmx:afterSwap", sortAll);
