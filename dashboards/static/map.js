// The map: drag a rectangle to see that part, or click to zoom in. Links and the form do the same without it.
"use strict";

const map = document.querySelector(".map");
if (map) {
  const band = document.createElement("div");
  band.className = "band";
  let from = null;
  const place = (event) => {
    const box = map.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top].map((v) => Math.min(1, Math.max(0, v / box.width)));
  };
  const show = ([left, top], [right, bottom]) => {
    const end = (key) => Number(map.dataset[key]);
    const x = (share) => end("x0") + share * (end("x1") - end("x0"));
    const y = (share) => end("y1") - share * (end("y1") - end("y0"));
    const ends = { x0: x(left), x1: x(right), y0: y(bottom), y1: y(top) };
    const query = new URLSearchParams({ colour: map.dataset.colour });
    for (const [key, value] of Object.entries(ends)) query.set(key, value.toPrecision(6));
    location.href = `/map?${query}`;
  };
  const corners = (to) => [
    [Math.min(from[0], to[0]), Math.min(from[1], to[1])],
    [Math.max(from[0], to[0]), Math.max(from[1], to[1])],
  ];
  map.addEventListener("dragstart", (event) => event.preventDefault());
  map.addEventListener("pointerdown", (event) => {
    if (event.button || event.pointerType === "touch") return; // a finger scrolls the page; a tap zooms in
    from = place(event);
    map.setPointerCapture(event.pointerId);
    map.append(band);
  });
  map.addEventListener("pointermove", (event) => {
    if (!from) return;
    const [[left, top], [right, bottom]] = corners(place(event));
    Object.assign(band.style, { left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%` });
  });
  map.addEventListener("pointerup", (event) => {
    if (!from) return;
    const [least, most] = corners(place(event));
    from = null;
    if (most[0] - least[0] > 0.02 && most[1] - least[1] > 0.02) {
      map.dataset.dragged = "yes";
      show(least, most);
    } else band.remove();
  });
  map.addEventListener("click", (event) => {
    if (map.dataset.dragged) return;
    const [x, y] = place(event);
    show([x - 0.25, y - 0.25], [x + 0.25, y + 0.25]);
  });
}
