// The map: drag a rectangle to see that part, click to zoom in, or choose with a lasso: drawn, or corner by corner.
// Links and the form do the same without it.
"use strict";

const map = document.querySelector(".map");
if (map) {
  const svg = map.querySelector("svg");
  const drawing = svg.querySelector("polygon");
  const before = drawing.getAttribute("points");
  const end = (key) => Number(map.dataset[key]);
  const clamp = (v) => Math.min(1, Math.max(0, v));
  const toMap = ([left, top]) => [end("x0") + left * (end("x1") - end("x0")), end("y1") - top * (end("y1") - end("y0"))];
  const place = (event) => { // shares of the width and height, from the left and the top
    const box = map.getBoundingClientRect();
    return [clamp((event.clientX - box.left) / box.width), clamp((event.clientY - box.top) / box.height)];
  };
  function open(parameters) {
    const query = new URLSearchParams({ colour: map.dataset.colour });
    for (const [key, value] of Object.entries(parameters)) if (value) query.set(key, value);
    location.href = `/map?${query}`;
  }

  // Zoom.
  const band = document.createElement("div");
  band.className = "band";
  function show([left, top], [right, bottom]) {
    const [[x0, y1], [x1, y0]] = [toMap([left, top]), toMap([right, bottom])];
    const ends = Object.fromEntries(Object.entries({ x0, x1, y0, y1 }).map(([k, v]) => [k, v.toPrecision(6)]));
    open({ ...ends, within: map.dataset.within });
  }
  const corners = (a, b) => [[Math.min(a[0], b[0]), Math.min(a[1], b[1])], [Math.max(a[0], b[0]), Math.max(a[1], b[1])]];

  // Lasso.
  const LEAST = 0.004, MOST = 60; // of its detail, in shares of the map; corners
  const button = (text, act) => {
    const made = document.createElement("button");
    made.type = "button";
    made.className = "quiet";
    made.textContent = text;
    made.addEventListener("click", act);
    return made;
  };
  const help = document.getElementById("map-help");
  const plain = help.textContent;
  const said = document.createElement("p");
  said.className = "hidden";
  said.setAttribute("role", "status");
  const cross = document.createElementNS("http://www.w3.org/2000/svg", "path");
  cross.setAttribute("class", "at");
  let line = [], cursor = [0.5, 0.5], choosing = false;
  const choose = button("Select with a lasso", () => setChoosing(!choosing));
  const close = button("Close the lasso", finish);
  choose.setAttribute("aria-pressed", "false");
  document.querySelector(".atlas nav").append(choose, close);
  close.hidden = true;
  help.after(said);

  function paint() {
    const points = choosing ? line.map(([x, y]) => `${(1000 * x).toFixed(1)},${(1000 * y).toFixed(1)}`).join(" ") : before;
    drawing.setAttribute("points", points);
    const [x, y] = cursor.map((v) => 1000 * v);
    cross.setAttribute("d", `M${x - 18} ${y}h36M${x} ${y - 18}v36`);
    close.hidden = !choosing || line.length < 3;
  }
  function setChoosing(on) {
    choosing = on;
    line = [];
    map.classList.toggle("choosing", on);
    choose.setAttribute("aria-pressed", `${on}`);
    help.textContent = on
      ? "Draw around what you want, or set corners by clicks. By keys: arrows move the cross (with Shift: further), Space sets a corner, Backspace takes the last one back, Enter closes the lasso, Escape ends."
      : plain;
    const attributes = { tabindex: "0", role: "application", "aria-label": "Lasso on the map", "aria-describedby": "map-help" };
    for (const [name, value] of Object.entries(attributes)) if (on) map.setAttribute(name, value); else map.removeAttribute(name);
    if (on) svg.append(cross);
    else cross.remove();
    paint();
    (on ? map : choose).focus({ preventScroll: true });
  }
  // Douglas and Peucker: leave out corners that lie nearer than `least` to the line between those that stay.
  function simplified(points, least) {
    const [a, b] = [points[0], points[points.length - 1]];
    const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
    const length = Math.hypot(dx, dy);
    const far = ([x, y]) => length ? Math.abs((x - a[0]) * dy - (y - a[1]) * dx) / length : Math.hypot(x - a[0], y - a[1]);
    let [most, at] = [0, 0];
    points.forEach((p, i) => { if (far(p) > most) [most, at] = [far(p), i]; });
    if (most <= least) return [a, b];
    return [...simplified(points.slice(0, at + 1), least).slice(0, -1), ...simplified(points.slice(at), least)];
  }
  function finish() {
    if (line.length < 3) return;
    let [kept, least] = [line, LEAST];
    while (kept.length > MOST) [kept, least] = [simplified(line, least), 2 * least];
    const ends = map.dataset.whole ? [] : ["x0", "x1", "y0", "y1"].map((key) => [key, end(key).toPrecision(6)]);
    open({ ...Object.fromEntries(ends), within: kept.map((p) => toMap(p).map((v) => v.toPrecision(5)).join(",")).join(" ") });
  }
  function corner(at) {
    line.push(at);
    said.textContent = `Corner ${line.length}, ${Math.round(100 * at[0])} % from the left, ${Math.round(100 * at[1])} % from the top`;
    paint();
  }
  const keys = {
    ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
    " ": () => corner([...cursor]),
    Backspace: () => { line.pop(); said.textContent = `${line.length} corners`; },
    Enter: finish,
    Escape: () => setChoosing(false),
  };
  map.addEventListener("keydown", (event) => {
    const act = choosing && keys[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    if (Array.isArray(act)) cursor = cursor.map((v, i) => clamp(v + act[i] * (event.shiftKey ? 0.1 : 0.02)));
    else act();
    paint();
  });

  // The pointer does the one or the other.
  let from = null, drawn = false;
  map.addEventListener("dragstart", (event) => event.preventDefault());
  map.addEventListener("pointerdown", (event) => {
    if (event.button || (event.pointerType === "touch" && !choosing)) return; // a finger scrolls the page; a tap zooms in
    from = place(event);
    drawn = false;
    map.setPointerCapture(event.pointerId);
    if (!choosing) map.append(band);
  });
  map.addEventListener("pointermove", (event) => {
    if (!from) return;
    const to = place(event);
    if (choosing) {
      if (!drawn && Math.hypot(to[0] - from[0], to[1] - from[1]) > 0.02) {
        drawn = true;
        line = [from];
      }
      if (drawn) line.push(to);
      return paint();
    }
    const [[left, top], [right, bottom]] = corners(from, to);
    Object.assign(band.style, { left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%` });
  });
  map.addEventListener("pointerup", (event) => {
    if (!from) return;
    const [least, most] = corners(from, place(event));
    from = null;
    if (choosing) return drawn && finish();
    if (most[0] - least[0] > 0.02 && most[1] - least[1] > 0.02) {
      map.dataset.dragged = "yes";
      show(least, most);
    } else band.remove();
  });
  map.addEventListener("click", (event) => {
    if (map.dataset.dragged) return;
    const [x, y] = place(event);
    if (!choosing) return show([x - 0.25, y - 0.25], [x + 0.25, y + 0.25]);
    cursor = [x, y];
    if (!drawn) corner([x, y]);
  });
  map.addEventListener("pointercancel", () => { from = null; band.remove(); });
}
