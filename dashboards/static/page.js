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

// A key presses the button, or focuses the field, whose data-key names it; Escape leaves a field.
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
