// Every page works without this, only less conveniently.
"use strict";

// Forms whose answer follows their inputs (htmx): what is as the page had it is not asked, so links stay short.
document.addEventListener("htmx:configRequest", (event) => {
  for (const input of event.detail.elt.querySelectorAll("input[type=range]"))
    if (Number(input.value) === Number(input.defaultValue) && !input.dataset.asked) event.detail.parameters.delete(input.name);
});
document.addEventListener("input", ({ target }) => {
  const shown = target.type === "range" && document.getElementById(`${target.id}-value`);
  if (shown) shown.textContent = Number(Number(target.value).toPrecision(4));
});

// Where the pages' names do not fit, that of this page is in sight.
document.querySelector("nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });

// One key presses the button, or enters the field, that names it; Escape leaves a field.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
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
