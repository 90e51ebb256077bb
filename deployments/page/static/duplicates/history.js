/** The history of decisions, from which each can be undone. */

import {ApiError, getJson, request, thumbnail} from "../api.js";
import {fill, h} from "../dom.js";
import {date, moment} from "../words.js";
import {levelName} from "./levels.js";

const MOST_SHOWN = 4;
const NAMES = {keep_all: "Kept all", different: "Different pictures", alternates: "Kept as alternates"};

export const undo = id => request(`v1/duplicates/decisions/${encodeURIComponent(id)}`, {method: "DELETE"}).then(answer => answer.json());

function words(one) {
  const ids = list => list.map(id => `#${id}`).join(", ");
  if (one.deleted.length) return `Deleted ${ids(one.deleted)}, kept ${ids(one.keep)}`;
  return `${NAMES[one.decision] || one.decision}: ${ids(one.image_ids)}`;
}

/** The panel; `undone` is called with a decision that was undone. */
export function historyPanel(undone) {
  const list = h("ol", {className: "history"}), more = h("button", {type: "button", className: "quiet", hidden: true}, "Earlier ones");
  const note = h("p", {className: "soft", role: "status"});
  const load = async cursor => {
    const body = await getJson(`v1/duplicates/decisions?limit=20${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
    list.append(...body.decisions.map(one => row(one, note, undone)));
    note.textContent = list.childElementCount ? "" : "Nothing was decided yet.";
    more.hidden = !body.next_cursor;
    more.onclick = () => load(body.next_cursor).catch(fail);
  };
  const fail = error => {
    if (!(error instanceof ApiError)) throw error;
    note.textContent = error.message;
  };
  load(null).catch(fail);
  return h("div", {className: "panel-body"}, note, list, more);
}

function row(one, note, undone) {
  const item = h("li", {});
  const draw = () => {
    const isUndone = one.state === "undone";
    const button = h("button", {type: "button", onclick: async () => {
      button.disabled = true;
      try {
        Object.assign(one, await undo(one.decision_id));
        draw();
        undone(one);
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        button.disabled = false;
        note.textContent = error.message;
      }
    }, "aria-label": `Undo: ${words(one)}`}, "Undo");
    const there = one.image_ids.filter(id => isUndone || !one.deleted.includes(id)).slice(0, MOST_SHOWN);
    fill(item, h("span", {className: "decided-on", "aria-hidden": "true"}, there.map(id => thumbnail(one.restored?.[id] ?? id, ""))),
      h("span", {className: isUndone ? "undone" : ""}, words(one)),
      h("span", {className: "soft"}, [one.level && levelName(one.level), one.by === "rule" ? "by a rule" : "", moment(date(one.made)), isUndone && "undone"].filter(Boolean).join(" · ")),
      !isUndone && button);
  };
  draw();
  return item;
}

