/** A box drawn on a picture, with the pointer or by arrow keys, as fractions [x, y, width, height]. */

import {h} from "../dom.js";

const SMALLEST = 0.04;
const STEP = 0.02;

/** Let boxes be drawn on `frame`, which a picture fills. `set` shows one and says whom to tell of
 * another; `begin` puts one in the middle, for the keyboard. */
export function drawRegions(frame) {
  let region = null, tell = () => {}, drag = null;
  const corner = h("span", {className: "region-corner"});
  const box = h("button", {type: "button", className: "region", hidden: true,
                           "aria-label": "Part to search by: arrow keys move it, with Shift they resize it, Enter searches, Escape removes it"}, corner);
  frame.append(box);

  const place = () => {
    box.hidden = !region;
    if (!region) return;
    ["left", "top", "width", "height"].forEach((side, at) => { box.style[side] = `${100 * region[at]}%`; });
  };
  const pointed = event => {
    const bounds = frame.getBoundingClientRect();
    return [clamp((event.clientX - bounds.left) / bounds.width), clamp((event.clientY - bounds.top) / bounds.height)];
  };
  frame.addEventListener("pointerdown", event => {
    if (event.button !== 0) return;
    const [x, y] = pointed(event);
    const kind = event.target === corner ? "resize" : event.target === box ? "move" : "draw";
    drag = {kind, x, y, before: region};
    frame.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  frame.addEventListener("pointermove", event => {
    if (!drag) return;
    const [x, y] = pointed(event);
    if (drag.kind === "draw") region = [Math.min(x, drag.x), Math.min(y, drag.y), Math.abs(x - drag.x), Math.abs(y - drag.y)];
    else region = changed(drag.before, x - drag.x, y - drag.y, drag.kind === "resize");
    place();
  });
  const end = () => {
    if (!drag) return;
    const {before} = drag;
    drag = null;
    if (region && (region[2] < SMALLEST || region[3] < SMALLEST)) region = before;
    place();
    if (region && String(region) !== String(before)) tell(region);
  };
  frame.addEventListener("pointerup", end);
  frame.addEventListener("pointercancel", end);
  box.addEventListener("keydown", event => {
    const [dx, dy] = {ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP]}[event.key] || [];
    if (dx !== undefined) {
      region = changed(region, dx, dy, event.shiftKey);
      place();
    } else if (event.key === "Enter") tell(region);
    else if (event.key === "Escape") tell(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  return {
    set(value, run) { region = value; tell = run; place(); },
    begin() { region = [0.25, 0.25, 0.5, 0.5]; place(); box.focus(); },
  };
}

const clamp = value => Math.min(1, Math.max(0, value));

function changed([x, y, width, height], dx, dy, resizes) {
  if (resizes) return [x, y, Math.min(1 - x, Math.max(SMALLEST, width + dx)), Math.min(1 - y, Math.max(SMALLEST, height + dy))];
  return [Math.min(1 - width, Math.max(0, x + dx)), Math.min(1 - height, Math.max(0, y + dy)), width, height];
}
