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
});

// If the navigation does not fit, scroll to the entry of this page.
document.querySelector("nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });

// A picture of a card or a sheet opens whole: ← → to the others of the same card or page, + − to zoom, Escape to close.
const viewer = document.createElement("dialog");
viewer.className = "viewer";
viewer.setAttribute("aria-label", "Picture");
viewer.innerHTML = '<img alt=""><p></p><button type="button" aria-label="Close">Close</button>';
const [whole, caption, close] = viewer.children;
let shown = [], at = 0, zoom = 1;
function look(step) {
  at = (at + step + shown.length) % shown.length;
  zoom = 1;
  whole.src = shown[at].getAttribute("src").replace(/\?side=\d+$/, shown[at].src.includes("/pictures/") ? "?side=1024" : "");
  whole.alt = shown[at].alt;
  whole.style.width = "";
  whole.classList.toggle("tiny", shown[at].classList.contains("tiny"));
  caption.textContent = `${shown[at].alt} (${at + 1} of ${shown.length})`;
}
function magnify(factor) {
  zoom = Math.min(16, Math.max(0.25, zoom * factor));
  whole.style.width = ""; // small pictures are shown larger than they are: this is what a step starts from
  whole.style.width = `${Math.round(whole.getBoundingClientRect().width * zoom)}px`;
}
function view(image) {
  document.body.append(viewer);
  shown = [...(image.closest(".shots, .sheets, .cards") ?? document).querySelectorAll("figure img")];
  at = shown.indexOf(image);
  look(0);
  viewer.showModal();
}
document.addEventListener("click", ({ target }) => {
  if (target.matches(".card .shot img, .bench .shot img, .sheets img") && !target.closest("button, a")) view(target);
  else if (target === close || target === viewer) viewer.close();
});
viewer.addEventListener("keydown", (event) => {
  const acts = { ArrowLeft: () => look(-1), ArrowRight: () => look(1), "+": () => magnify(1.5), "-": () => magnify(1 / 1.5) };
  if (!acts[event.key]) return;
  event.preventDefault();
  event.stopPropagation();
  acts[event.key]();
});
for (const image of document.querySelectorAll(".card .shot img, .bench .shot img, .sheets img")) {
  image.tabIndex = 0;
  image.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault(); // else the same key presses the button that has the focus next
    view(image);
  });
}

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
