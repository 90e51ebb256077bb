/** The rules: which picture is the best, and which levels need nobody's decision. */

import {ApiError, getJson, sendJson} from "../api.js";
import {fill, h} from "../dom.js";
import {bytes, many} from "../words.js";
import {levelName} from "./levels.js";

/** The panel; `counts` are the levels of the queue: what each rule would decide now. */
export function rulesPanel(counts) {
  const panel = h("div", {className: "panel-body rules"}, h("p", {className: "soft"}, "Reading the rules …"));
  const note = h("p", {className: "bad-text", role: "alert"});
  const fail = error => {
    if (!(error instanceof ApiError)) throw error;
    note.textContent = error.message;
    panel.append(note);
  };
  const draw = rules => fill(panel, levels(rules, counts, load, fail), order(rules, draw, fail), note);
  const load = () => getJson("v1/duplicates/rules").then(draw).catch(fail);
  load();
  return panel;
}

function levels(rules, counts, load, fail) {
  const rows = rules.levels.map(one => {
    const count = counts.find(row => row.level === one.level);
    const isReady = one.approvals >= one.needed;
    const box = h("input", {type: "checkbox", checked: one.automatic, disabled: !one.automatic && !isReady, "aria-label": `Decide ${levelName(one.level)} automatically`,
      onchange: () => sendJson("PUT", `v1/duplicates/rules/${one.level}`, {automatic: box.checked}).then(load, error => { box.checked = !box.checked; fail(error); })});
    const progress = one.automatic ? "automatic" : `${one.approvals} of ${one.needed} approvals`;
    return h("tr", {}, h("th", {scope: "row"}, levelName(one.level), h("span", {className: "soft kind"}, one.meaning)),
      h("td", {}, h("label", {className: "check"}, box, progress)),
      h("td", {className: "soft"}, count?.groups ? `would decide ${many(count.groups, "group")}, to free ${bytes(count.bytes) || "nothing known"}` : "nothing to decide"));
  });
  return h("section", {}, h("h2", {}, "Automatic levels"),
    h("p", {className: "soft"}, "A level can become automatic once enough of its groups were decided for the better picture. ", h("code", {}, "ambience duplicates --apply"), " then decides them; ", h("code", {}, "--try LEVEL"), " shows before what it would do, as a sheet of pairs."),
    h("div", {className: "scrolling", tabIndex: 0, role: "region", "aria-label": "Automatic levels"}, h("table", {}, h("tbody", {}, rows))));
}

function order(rules, draw, fail) {
  const save = best => sendJson("PUT", "v1/duplicates/rules/best", {order: best}).then(answer => answer.json()).then(draw).catch(fail);
  const moved = (index, step) => {
    const next = [...rules.best];
    [next[index], next[index + step]] = [next[index + step], next[index]];
    return next;
  };
  const rest = Object.keys(rules.criteria).filter(name => !rules.best.includes(name));
  const named = name => h("span", {}, h("strong", {}, name), h("span", {className: "soft kind"}, rules.criteria[name]));
  return h("section", {}, h("h2", {}, "Which picture is better"),
    h("p", {className: "soft"}, "The first of these by which two pictures differ decides. The next run of ", h("code", {}, "ambience duplicates"), " applies a change."),
    h("ol", {className: "criteria"}, rules.best.map((name, index) => h("li", {}, named(name), h("span", {className: "row"},
      h("button", {type: "button", className: "quiet", disabled: index === 0, "aria-label": `${name} up`, onclick: () => save(moved(index, -1))}, "↑"),
      h("button", {type: "button", className: "quiet", disabled: index === rules.best.length - 1, "aria-label": `${name} down`, onclick: () => save(moved(index, 1))}, "↓"),
      h("button", {type: "button", className: "quiet", disabled: rules.best.length === 1, "aria-label": `Leave ${name} out`, onclick: () => save(rules.best.filter(one => one !== name))}, "×"))))),
    rest.length > 0 && h("p", {className: "row"}, "Not used: ", rest.map(name => h("button", {type: "button", title: rules.criteria[name], onclick: () => save([...rules.best, name])}, `+ ${name}`))));
}
