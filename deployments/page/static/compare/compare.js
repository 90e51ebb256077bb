/** The comparison that fills the window. */

import {ApiError} from "../api.js";
import {at as element, fill, h, isTyping} from "../dom.js";
import {go} from "../navigation.js";
import {EMPTY, format} from "../search/query.js";
import {bytes, date, dayOf, nameOf, numbers, percent, relation as words} from "../words.js";
import {related, rowOf} from "./pairs.js";
import {makeStage} from "./stage.js";

let open = null;
let stage = null;

export const isComparing = () => element("compare").open;

/** Compare the pairs that `at()` returns, beginning with one: `{left, right, hit}`; `left` is null
 * where an image is only looked at. Back closes it, too. */
export function openCompare({at, index}) {
  const dialog = element("compare");
  const returning = document.activeElement;
  stage ??= makeStage();
  open = {at, index, returning};
  const previous = h("button", {type: "button", "aria-label": "Previous", onclick: () => move(-1)}, "←");
  const next = h("button", {type: "button", "aria-label": "Next", onclick: () => move(1)}, "→");
  const place = h("span", {className: "soft place"});
  const title = h("h2", {}), facts = h("p", {className: "soft facts"});
  const from = h("a", {className: "button quiet"}, "Search from it");
  const details = h("dl", {className: "numbers compare-numbers", hidden: true});
  const switcher = h("button", {type: "button", className: "quiet", "aria-pressed": "false", title: "Key N", onclick: () => {
    details.hidden = !details.hidden;
    switcher.setAttribute("aria-pressed", String(!details.hidden));
  }}, "Numbers");
  const close = h("button", {type: "button", className: "quiet", onclick: leave}, "Close");
  Object.assign(open, {previous, next, place, title, facts, from, details, switcher});
  fill(dialog, h("header", {className: "compare-head"}, h("div", {className: "row"}, previous, next, place),
                 h("div", {className: "compare-title"}, title, facts), h("div", {className: "row"}, switcher, from, close)),
       details, stage.element);
  dialog.oncancel = event => { event.preventDefault(); leave(); };
  if (!dialog.open) dialog.showModal();
  close.focus();
  showPair();
}

/** Close as the reader does: by going back to the entry before. */
function leave() {
  if (history.state?.compare !== undefined) history.back();
  else closeCompare();
}

export function closeCompare() {
  const dialog = element("compare");
  if (!dialog.open) return;
  dialog.close();
  stage.show(null);
  open.returning?.focus?.({preventScroll: true});
  open = null;
}

function move(step) {
  const count = open.at().length;
  const index = open.index + step;
  if (index < 0 || index >= count) return;
  open.index = index;
  showPair();
}

async function showPair() {
  const mine = open, pairs = mine.at(), pair = pairs[mine.index];
  const state = {...history.state, compare: pair.right.image_id};
  if (history.state?.compare === undefined) history.pushState(state, "");
  else history.replaceState(state, "");
  mine.previous.disabled = mine.index === 0;
  mine.next.disabled = mine.index === pairs.length - 1;
  mine.place.textContent = `${mine.index + 1} of ${pairs.length}`;
  mine.from.href = format({...EMPTY, like: [pair.right.image_id]});
  mine.from.onclick = event => {
    event.preventDefault();
    go(mine.from.getAttribute("href"));
  };
  const say = found => {
    mine.title.textContent = [pair.right.name, ...words(found)].join(" · ");
    const facts = [found.width && `${found.width} × ${found.height}`, found.format, bytes(found.bytes), date(found.taken) && `taken ${dayOf(found)}`, found.confidence !== undefined && pair.left && `${percent(Math.min(0.99, found.confidence))} sure`,
                   found.overlap && Math.min(...found.overlap) < 0.98 && `they share ${percent(found.overlap[0])} of yours and ${percent(found.overlap[1])} of it`];
    mine.facts.textContent = facts.filter(Boolean).join(" · ");
  };
  say(pair.hit);
  fill(mine.details, numbers(pair.hit).map(([key, value]) => h("div", {}, h("dt", {}, key), h("dd", {}, value))));
  mine.switcher.hidden = !mine.details.childElementCount;
  stage.show(pair, null);
  try {
    const [row, found] = await Promise.all([rowOf(pair.right.image_id), pair.left && related(pair)]);
    if (!isShown(mine, pair)) return;
    pair.right.name = nameOf(row);
    stage.show(pair, found, row);
    say({...pair.hit, ...row, retrievers: {}, ...found});
    // The one after is asked for meanwhile.
    if (pairs[mine.index + 1]) related(pairs[mine.index + 1]).catch(() => {});
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (isShown(mine, pair)) stage.fail(error.message);
  }
}

const isShown = (mine, pair) => open === mine && mine.at()[mine.index]?.right.image_id === pair.right.image_id;

element("compare").addEventListener("keydown", event => {
  if (!open || isTyping(event)) return;
  if (event.key === " " && event.target.closest("button, a, input") && !event.target.closest(".hold") && event.target.type !== "button") return;
  if (stage.keydown(event)) { event.preventDefault(); return; }
  if (event.target.type === "range") return;
  if (event.key === "ArrowLeft") move(-1);
  else if (event.key === "ArrowRight") move(1);
  else if (event.key === "n" || event.key === "N") open.switcher.click();
});
element("compare").addEventListener("keyup", event => { if (open) stage.keyup(event); });
