/** The duplicates view: groups one after the other, the strictest level first, and what to do with
 * each. Nothing is deleted but by a button or key that says so, and everything can be undone. */

import {ApiError, sendJson, thumbnail} from "../api.js";
import {announce, at, fill, h, isTyping, notice, toast} from "../dom.js";
import {related} from "../compare/pairs.js";
import {makeStage} from "../compare/stage.js";
import {bytes, many, nameOf, percent, relation} from "../words.js";
import {differences} from "./differences.js";
import {historyPanel, undo} from "./history.js";
import {levelName} from "./levels.js";
import {makeQueue, sides} from "./queue.js";
import {rulesPanel} from "./rules.js";

const ACTIONS = [
  ["left", "←", "Keep left", "delete the right one"], ["right", "→", "Keep right", "delete the left one"],
  ["both", "B", "Keep both", "copies, but both stay"], ["alternates", "A", "Alternates", "a stack of versions"],
  ["different", "D", "Different", "no duplicates at all"], ["later", "L", "Later", "the next one first"],
];
let queue = null, stage = null, other = 1, panel = "";
/** Decisions of this visit that can be undone, the last one last. */
const decided = [];
/** Decisions on their way to the service, one after the other, so that the reader need not wait. */
let sending = Promise.resolve();
const parts = {};

export function show(parameters) {
  const level = parameters.get("level") || "";
  if (!parts.levels) build();
  if (!queue || queue.level !== level) restart(level);
  else draw();
}

function restart(level) {
  queue = makeQueue(level, () => draw());
  other = 1;
  fill(parts.body, h("p", {className: "soft"}, "Looking for groups …"));
  queue.more();
}

function build() {
  stage = makeStage();
  for (const name of ["levels", "panel", "body"]) parts[name] = h("div", {className: `duplicates-${name}`});
  const opener = (name, text) => h("button", {type: "button", className: "quiet", "data-panel": name, "aria-expanded": "false", onclick: () => toggle(name)}, text);
  parts.undo = h("button", {type: "button", className: "quiet", disabled: true, onclick: undoLast}, "Undo ", h("kbd", {}, "U"));
  fill(at("view-duplicates"), h("h1", {className: "unseen"}, "Duplicates"),
    h("div", {className: "duplicates-head"}, parts.levels, h("div", {className: "row"}, parts.undo, opener("history", "History"), opener("rules", "Rules"))),
    parts.panel, parts.body);
}

function toggle(name) {
  panel = panel === name ? "" : name;
  for (const one of at("view-duplicates").querySelectorAll("[data-panel]")) one.setAttribute("aria-expanded", String(one.dataset.panel === panel));
  parts.panel.hidden = !panel;
  fill(parts.panel, panel === "history" && historyPanel(() => restart(queue.level)), panel === "rules" && rulesPanel(queue.levels));
}

function drawLevels() {
  const all = queue.levels.reduce((sum, one) => sum + one.groups, 0);
  const link = (level, text, count, win) => h("a", {href: level ? `#/duplicates?level=${level}` : "#/duplicates", "aria-current": queue.level === level ? "true" : null, title: win ? `${bytes(win)} to free` : ""},
    text, h("span", {className: "count"}, count.toLocaleString()));
  const shown = queue.levels.filter(one => one.groups || one.level === queue.level);
  fill(parts.levels, h("nav", {"aria-label": "Levels"}, link("", "All", all), shown.map(one => link(one.level, levelName(one.level), one.groups, one.bytes))));
}

function draw() {
  const focused = document.activeElement?.dataset.decision;
  drawLevels();
  parts.undo.disabled = !decided.length;
  const [group] = queue.groups;
  if (!group) return queue.failure ? failed() : nothing();
  queue.prefetch();
  other = Math.min(other, group.images.length - 1);
  const [left, right] = [group.images[0], group.images[other]];
  const pair = sides(group, other);
  const known = pairOf(group, left, right);
  const count = queue.levels.filter(one => !queue.level || one.level === queue.level).reduce((sum, one) => sum + one.groups, 0);
  const words = known ? relation(known) : [];
  fill(parts.body,
    h("div", {className: "group-head"}, h("h2", {}, levelName(group.level)),
      h("p", {className: "soft"}, [...words.filter(one => one !== "the same picture"), known && `${percent(Math.min(0.99, known.confidence))} sure`, group.bytes > 0 && `${bytes(group.bytes)} to free`, `${many(count, "group")} to decide`].filter(Boolean).join(" · "))),
    group.images.length > 2 && strip(group),
    h("div", {className: "group-stage"}, stage.element),
    h("div", {className: "decisions", role: "group", "aria-label": "Decide"}, ACTIONS.map(([name, key, text, title]) =>
      h("button", {type: "button", title, className: name === "left" || name === "right" ? "delete" : "", "data-decision": name, onclick: () => decide(name)}, text, h("kbd", {"aria-hidden": "true"}, key))),
      group.images.length > 2 && h("button", {type: "button", className: "delete", "data-decision": "best", title: "delete all others", onclick: () => decide("best")}, `Keep the best of ${group.images.length}`)),
    h("div", {className: "scrolling", tabIndex: 0, role: "region", "aria-label": "What differs"}, differences(left, right)));
  parts.panel.hidden = !panel;
  if (focused) (parts.body.querySelector(`[data-decision=${focused}]`) || parts.body.querySelector("[data-decision]")).focus({preventScroll: true});
  compare(group, pair);
}

/** What the job found of two images, with the sides in the order in which they are shown. */
function pairOf(group, left, right) {
  const found = group.pairs.find(one => (one.a === left.image_id && one.b === right.image_id) || (one.b === left.image_id && one.a === right.image_id));
  if (!found || found.a === left.image_id) return found;
  return {...found, overlap: found.overlap && [found.overlap[1], found.overlap[0]]};
}

async function compare(group, pair) {
  stage.show(pair, null);
  try {
    const found = await related(pair);
    if (queue.groups[0] === group && sides(group, other).right.image_id === pair.right.image_id) stage.show(pair, found);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    stage.fail(error.message);
  }
}

function strip(group) {
  return h("ul", {className: "strip", "aria-label": "Images of this group"}, group.images.slice(1).map((image, index) => h("li", {},
    h("button", {type: "button", "aria-pressed": String(index + 1 === other), "aria-label": `Compare the best one with ${nameOf(image)}`, onclick: () => { other = index + 1; draw(); }},
      thumbnail(image.image_id, "", {lazy: false})))));
}

function failed() {
  if (!(queue.failure instanceof ApiError)) throw queue.failure;
  fill(parts.body, notice("error", queue.failure.message, h("button", {type: "button", onclick: () => restart(queue.level)}, "Try again")));
}

function nothing() {
  if (!queue.isWhole) return;
  const command = h("p", {}, h("code", {}, "ambience duplicates"));
  if (!queue.head) fill(parts.body, notice("", "The collection was not searched for duplicates yet.", h("p", {}, "This command compares all pictures with each other, and resumes where it was interrupted:"), command));
  else if (queue.pending) fill(parts.body, notice("", "Nothing is left to decide.", h("p", {}, `${many(queue.pending, "change")} since the last search for duplicates. Look at these, too:`), command));
  else fill(parts.body, notice("", "Nothing is left to decide.", h("p", {}, "All pictures were compared with each other.")));
}

function requestOf(name, group, left, right) {
  const image_ids = [left.image_id, right.image_id];
  if (name === "left") return {decision: "delete", image_ids, keep: [left.image_id]};
  if (name === "right") return {decision: "delete", image_ids, keep: [right.image_id]};
  if (name === "best") return {decision: "delete", image_ids: group.images.map(one => one.image_id), keep: [group.images[0].image_id]};
  return {decision: {both: "keep_all"}[name] || name, image_ids};
}

/** Decide on the two that are shown. The next ones show at once; the service is told meanwhile. */
function decide(name) {
  const [group] = queue.groups;
  if (!group) return;
  if (name === "later") { other = 1; queue.later(); draw(); return; }
  const [left, right] = [group.images[0], group.images[other]];
  const body = requestOf(name, group, left, right);
  const decision = {group: {...group, images: [...group.images]}, answer: null};
  const gone = name === "best" ? group.images.slice(1) : [name === "right" ? left : right];
  const rest = group.images.filter(one => !gone.includes(one));
  if (rest.length > 1) group.images = rest;
  else {
    queue.drop();
    const count = queue.levels.find(one => one.level === group.level);
    if (count) Object.assign(count, {groups: Math.max(0, count.groups - 1)});
  }
  other = 1;
  decided.push(decision);
  decision.answer = sending.then(() => sendJson("POST", "v1/duplicates/decisions", body)).then(answer => answer.json());
  sending = decision.answer.catch(error => {
    if (!(error instanceof ApiError)) throw error;
    restore(decision);
    toast(`Not decided: ${error.message}`);
  });
  announce(`${ACTIONS.find(([one]) => one === name)?.[2] || "Keep the best"}.`);
  draw();
}

/** Show a group again, as it was before it was decided on. */
function restore(decision, restored = {}) {
  if (decided.includes(decision)) decided.splice(decided.indexOf(decision), 1);
  const back = id => restored[id] ?? id;
  const group = {...decision.group, images: decision.group.images.map(one => ({...one, image_id: back(one.image_id)})),
                 pairs: decision.group.pairs.map(one => ({...one, a: back(one.a), b: back(one.b)}))};
  const isHere = queue.groups.findIndex(one => one.group_id === group.group_id);
  if (isHere >= 0) queue.groups.splice(isHere, 1);
  else {
    const count = queue.levels.find(one => one.level === group.level);
    if (count) count.groups += 1;
  }
  queue.groups.unshift(group);
  other = 1;
  draw();
}

async function undoLast() {
  const decision = decided.pop();
  if (!decision) return;
  parts.undo.disabled = !decided.length;
  try {
    const made = await decision.answer;
    const {restored} = await undo(made.decision_id);
    restore(decision, restored);
    toast("Undone.");
    if (panel === "history") { panel = ""; toggle("history"); }
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    toast(`Not undone: ${error.message}`);
  }
}

export function keydown(event) {
  if (isTyping(event) || event.target.type === "range") return;
  if (event.shiftKey || !/^Arrow(Left|Right)$/.test(event.key)) {
    if (stage?.keydown(event)) { event.preventDefault(); return; }
  }
  const key = {ArrowLeft: "←", ArrowRight: "→"}[event.key] || event.key.toUpperCase();
  const action = ACTIONS.find(([, one]) => one === key);
  if (action) { event.preventDefault(); decide(action[0]); }
  else if (key === "U") undoLast();
}

addEventListener("keyup", event => { if (stage && !at("view-duplicates").hidden) stage.keyup(event); });
