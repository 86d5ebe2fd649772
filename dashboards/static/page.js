// Forms whose answer follows their inputs (htmx): what is as the page had it is not asked, so links stay short.
"use strict";

document.addEventListener("htmx:configRequest", (event) => {
  for (const input of event.detail.elt.querySelectorAll("input[type=range]"))
    if (Number(input.value) === Number(input.defaultValue) && !input.dataset.asked) event.detail.parameters.delete(input.name);
});
document.addEventListener("input", ({ target }) => {
  const shown = target.type === "range" && document.getElementById(`${target.id}-value`);
  if (shown) shown.textContent = Number(Number(target.value).toPrecision(4));
});
