/** Two pictures in one frame: side by side, blinking, under a curtain, as their difference, or with
 * their matched points joined. Zoom and place stay when the next pair comes. */

import {thumbnail} from "../api.js";
import {fill, h} from "../dom.js";
import {asTransform, commonFrame, IDENTITY, moved, units} from "./homography.js";
import {makeView} from "./view.js";

export const MODES = [["side", "Side by side"], ["blink", "Blink"], ["curtain", "Curtain"], ["difference", "Difference"], ["points", "Points"]];
const MOST_LINES = 150;

/** A stage. `show(pair, relation)` shows a pair; a pair without a left side is one picture. */
export function makeStage() {
  const stage = {mode: "side", isAligned: true, isSwapped: false, curtain: 0.5, pair: null, relation: null, layout: null};
  const panes = h("div", {className: "panes"});
  const buttons = MODES.map(([name, text], at) => h("button", {type: "button", "data-mode": name, title: `Key ${at + 1}`, onclick: () => setMode(name)}, text));
  const align = h("label", {className: "check"}, h("input", {type: "checkbox", checked: true, onchange: event => { stage.isAligned = event.target.checked; build(); }}), "Aligned");
  const hold = h("button", {type: "button", className: "hold", title: "Hold the space bar"}, "Hold to blink");
  hold.onpointerdown = () => swap(true);
  hold.onpointerup = hold.onpointerleave = hold.onblur = () => swap(false);
  const slider = h("input", {type: "range", min: 0, max: 1000, value: 500, className: "curtain-slider", "aria-label": "Place of the curtain",
                             oninput: event => { stage.curtain = event.target.value / 1000; place(); }});
  const note = h("p", {className: "stage-note", role: "status"});
  const zoom = h("div", {className: "row zoom"},
    h("button", {type: "button", "aria-label": "Zoom out", onclick: () => view.zoomBy(1 / 1.5)}, "−"),
    h("button", {type: "button", "aria-label": "Fit the window", onclick: () => view.reset()}, "Fit"),
    h("button", {type: "button", "aria-label": "Zoom in", onclick: () => view.zoomBy(1.5)}, "+"));
  const bar = h("div", {className: "stage-bar"}, h("div", {className: "segments", role: "group", "aria-label": "Way to compare"}, buttons), align, hold, slider, note, zoom);
  const view = makeView(panes, place);
  stage.element = h("div", {className: "stage"}, panes, bar);
  new ResizeObserver(place).observe(panes);

  function setMode(name) {
    stage.mode = name;
    build();
  }

  function swap(on) {
    if (!stage.pair?.left || stage.isSwapped === on) return;
    stage.isSwapped = on;
    if (on && stage.mode !== "blink") setMode("blink");
    panes.classList.toggle("swapped", on);
    name();
  }

  stage.show = (pair, relation, sides) => {
    Object.assign(stage, {pair, relation, sides, isSwapped: false});
    panes.classList.remove("swapped");
    build();
  };

  /** Draw the panes anew: what they hold depends on the pair and the mode. */
  function build() {
    const {pair, relation} = stage;
    const isPair = Boolean(pair?.left);
    bar.classList.toggle("single", !isPair);
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.mode === stage.mode));
    align.hidden = stage.mode !== "side" || !isPair;
    hold.hidden = stage.mode !== "blink" || !isPair;
    slider.hidden = stage.mode !== "curtain" || !isPair;
    panes.dataset.mode = isPair ? stage.mode : "single";
    panes.querySelectorAll(".pane").forEach(one => one.remove());
    panes.querySelector("canvas")?.remove();
    stage.frames = [];
    if (!pair) return;
    if (!isPair) single(pair);
    else if (!relation) both(null);
    else if (stage.mode === "points" || (stage.mode === "side" && !stage.isAligned)) both(null);
    else if (stage.mode === "side") both(commonFrame(relation));
    else one(commonFrame(relation));
    if (stage.mode === "points" && isPair) panes.append(h("canvas", {className: "lines", "aria-hidden": "true"}));
    name();
    place();
  }

  function single(pair) {
    addPane(units(stage.sides || {width: 4, height: 3}), [layer(pair.right, stage.sides || {width: 4, height: 3}, IDENTITY)], pair.right);
  }

  /** A pane for each picture; in a common frame both lie at the same place. */
  function both(common) {
    for (const [side, key] of [["left", "query"], ["right", "image"]]) {
      const size = stage.relation?.[key] || {width: 4, height: 3};
      const frame = common ? common.frame : units(size);
      addPane(frame, [layer(stage.pair[side], size, common ? common[key] : IDENTITY, !stage.relation)], stage.pair[side]);
    }
  }

  /** Both pictures in one pane; the query lies above. */
  function one(common) {
    const {query, image} = stage.relation;
    const under = layer(stage.pair.right, image, common.image), over = layer(stage.pair.left, query, common.query);
    const top = h("div", {className: "top-layer"}, over);
    const inner = h("div", {className: "overlap"}, under, top);
    const frame = addPane(common.frame, [inner], null);
    stage.top = top;
    if (stage.mode !== "difference") return;
    const [of, shape, matrix] = common.of === "query" ? ["query", units(image), common.image] : ["image", units(query), common.query];
    const corners = [[0, 0], [shape.width, 0], [shape.width, shape.height], [0, shape.height]].map(([x, y]) => moved(matrix, x, y));
    inner.style.clipPath = `polygon(${corners.map(([x, y]) => `${x}px ${y}px`).join(",")})`;
    for (const region of stage.relation.regions || []) {
      const [x, y, width, height] = region[of].map(value => value * common.frame.scale);
      frame.append(h("div", {className: "changed", style: {left: `${x}px`, top: `${y}px`, width: `${width}px`, height: `${height}px`}}));
    }
  }

  function addPane(sides, children, side) {
    const frame = h("div", {className: "frame", style: {width: `${sides.width}px`, height: `${sides.height}px`}}, children);
    const pane = h("div", {className: "pane"}, frame, side && h("span", {className: "pane-name"}, side.name || `Image ${side.image_id}`));
    panes.append(pane);
    stage.frames.push({pane, frame, sides});
    return frame;
  }

  function place() {
    for (const {pane, frame, sides} of stage.frames || []) {
      const {left, top, scale} = view.placed(pane.clientWidth, pane.clientHeight, sides);
      frame.style.transform = `translate(${left}px, ${top}px) scale(${scale})`;
      frame.style.setProperty("--line", `${2 / scale}px`);
      if (stage.mode === "curtain" && stage.top && stage.pair?.left) {
        const cut = (stage.curtain * pane.clientWidth - left) / scale;
        stage.top.style.clipPath = `polygon(${cut}px -9999px, 99999px -9999px, 99999px 99999px, ${cut}px 99999px)`;
        panes.style.setProperty("--curtain", `${100 * stage.curtain}%`);
      }
    }
    drawLines();
  }

  function drawLines() {
    const canvas = panes.querySelector("canvas.lines");
    if (!canvas || stage.frames.length < 2 || !stage.relation) return;
    const bounds = panes.getBoundingClientRect(), density = devicePixelRatio || 1;
    canvas.width = bounds.width * density;
    canvas.height = bounds.height * density;
    const pen = canvas.getContext("2d");
    pen.scale(density, density);
    const matches = stage.relation.matches || [];
    const step = Math.max(1, Math.floor(matches.length / MOST_LINES));
    const point = ({pane, sides}, x, y) => {
      const {left, top, scale} = view.placed(pane.clientWidth, pane.clientHeight, sides);
      return [pane.offsetLeft + left + x * sides.scale * scale, pane.offsetTop + top + y * sides.scale * scale];
    };
    matches.forEach(([x, y, x2, y2], at) => {
      if (at % step) return;
      const [one, other] = [point(stage.frames[0], x, y), point(stage.frames[1], x2, y2)];
      pen.strokeStyle = pen.fillStyle = `hsl(${(at * 47) % 360} 85% 60% / .75)`;
      pen.lineWidth = 1.2;
      pen.beginPath();
      pen.moveTo(...one);
      pen.lineTo(...other);
      pen.stroke();
      for (const [across, down] of [one, other]) { pen.beginPath(); pen.arc(across, down, 3, 0, 7); pen.fill(); }
    });
  }

  function name() {
    const {pair, relation, mode} = stage;
    const shown = [];
    if (!pair?.left) shown.push("");
    else if (!relation) shown.push(stage.failure || "Comparing …");
    else if (mode === "blink") shown.push(`Showing ${stage.isSwapped ? pair.right.name || `image ${pair.right.image_id}` : pair.left.name || `image ${pair.left.image_id}`}. Hold the space bar for the other one.`);
    else if (mode === "difference" && relation.homography) shown.push(relation.regions?.length ? `${relation.regions.length} changed ${relation.regions.length === 1 ? "region" : "regions"}` : "No changed regions");
    else if (mode === "points") shown.push(`${(relation.matches || []).length} matched points`);
    if (relation && pair?.left && !relation.homography && mode !== "points") shown.push("Nothing aligns: both are fitted to one frame.");
    note.textContent = shown.join(" ").trim();
  }

  stage.fail = message => { stage.failure = message; name(); };
  stage.keydown = event => {
    const index = Number(event.key) - 1;
    if (event.key === " " && stage.pair?.left) { if (!event.repeat) swap(true); event.preventDefault(); }
    else if (MODES[index] && stage.pair?.left) setMode(MODES[index][0]);
    else if (event.key === "+" || event.key === "=") view.zoomBy(1.5);
    else if (event.key === "-") view.zoomBy(1 / 1.5);
    else if (event.key === "0") view.reset();
    else if (event.shiftKey && event.key.startsWith("Arrow")) view.panBy(...{ArrowLeft: [-80, 0], ArrowRight: [80, 0], ArrowUp: [0, -80], ArrowDown: [0, 80]}[event.key]);
    else return false;
    return true;
  };
  stage.keyup = event => { if (event.key === " ") swap(false); };
  panes.addEventListener("pointerdown", event => {
    if (stage.mode !== "curtain" || !stage.pair?.left) return;
    const bounds = panes.getBoundingClientRect();
    if (Math.abs((event.clientX - bounds.left) / bounds.width - stage.curtain) * bounds.width > 14) return;
    event.stopImmediatePropagation();
    panes.setPointerCapture(event.pointerId);
    const drag = move => {
      stage.curtain = Math.min(1, Math.max(0, (move.clientX - bounds.left) / bounds.width));
      slider.value = 1000 * stage.curtain;
      place();
    };
    panes.addEventListener("pointermove", drag);
    panes.addEventListener("pointerup", () => panes.removeEventListener("pointermove", drag), {once: true});
  }, {capture: true});
  return stage;
}

/** A picture of a side, laid out in its own units and moved into the frame. */
function layer(side, size, matrix, isUnknown = false) {
  const {width, height} = units(size);
  const properties = {className: `layer${isUnknown ? " unknown" : ""}`, style: {width: `${width}px`, height: `${height}px`, transform: asTransform(matrix)}};
  const name = side.name || `Image ${side.image_id}`;
  if (side.url) return h("img", {src: side.url, alt: name, draggable: false, ...properties});
  return thumbnail(side.image_id, name, {lazy: false, ...properties});
}
