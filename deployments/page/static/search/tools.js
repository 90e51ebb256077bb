/** What narrows and orders the results: order, filters, weights, numbers, a link to share. */

import {at, fill, h, toast} from "../dom.js";
import {states} from "../retrievers.js";
import {EMPTY, FILTERS, isEmpty, narrowed} from "./query.js";

const SORTS = [["relevance", "Best first"], ["newest", "Newest first"], ["oldest", "Oldest first"]];
const RELATIONS = [["", "Any"], ["copy", "Copies"], ["edited", "Edited copies"], ["part", "Crops and the same scene"], ["alike", "Look alike"]];
const FORMATS = ["", "JPEG", "PNG", "WEBP", "GIF", "HEIF", "AVIF", "TIFF"];
const NAMES = {relation: "relation", tags: "tag", added_after: "added from", added_before: "added until", taken_after: "taken from", taken_before: "taken until", format: "format", larger: "larger than yours"};
let open = "";

export function showTools(query, change) {
  const tools = at("tools");
  tools.hidden = isEmpty(query);
  if (tools.hidden) return;
  const numbers = h("button", {type: "button", className: "quiet numbers-switch", title: "Show numbers (N)",
                               "aria-pressed": String(at("found").classList.contains("with-numbers"))}, "Numbers");
  numbers.onclick = () => {
    const on = at("found").classList.toggle("with-numbers");
    numbers.setAttribute("aria-pressed", String(on));
  };
  const panels = {filters: filters(query, change), weights: advanced(query, change)};
  const count = narrowed(query).length;
  fill(tools,
    h("div", {className: "row tools-row"},
      choice("Order", SORTS, query.sort, sort => change({sort})),
      opener("filters", count ? `Filters (${count})` : "Filters", panels), opener("weights", "Advanced", panels),
      numbers, h("button", {type: "button", className: "quiet", onclick: () => share(query)}, "Copy link")),
    count > 0 && h("ul", {className: "chips", "aria-label": "Filters in use"}, narrowed(query).flatMap(name => chips(query, name, change))),
    panels.filters, panels.weights);
}

function choice(label, options, value, run) {
  const select = h("select", {onchange: event => run(event.target.value)},
                   options.map(([key, text]) => h("option", {value: key, selected: key === value}, text)));
  return h("label", {className: "choice"}, h("span", {}, label), select);
}

function opener(name, text, panels) {
  const panel = panels[name];
  panel.id = `tools-${name}`;
  panel.hidden = open !== name;
  return h("button", {type: "button", className: "quiet", "aria-expanded": String(!panel.hidden), "aria-controls": panel.id, "data-panel": name, onclick: () => {
    open = open === name ? "" : name;
    for (const [key, one] of Object.entries(panels)) one.hidden = open !== key;
    for (const one of at("tools").querySelectorAll("[data-panel]")) one.setAttribute("aria-expanded", String(one.dataset.panel === open));
  }}, text);
}

function chips(query, name, change) {
  const values = name === "tags" ? query.tags : [query[name]];
  return values.map(value => {
    const shown = name === "larger" ? "" : name === "relation" ? RELATIONS.find(([key]) => key === value)?.[1] : value;
    const without = name === "tags" ? query.tags.filter(one => one !== value) : EMPTY[name];
    return h("li", {}, h("button", {type: "button", className: "chip", title: "Remove this filter", onclick: () => change({[name]: without})},
                         `${NAMES[name]} ${shown}`.trim(), h("span", {"aria-hidden": "true"}, " ×")));
  });
}

function filters(query, change) {
  const date = (name, label) => h("label", {className: "choice"}, h("span", {}, label),
    h("input", {type: "date", value: query[name], onchange: event => change({[name]: event.target.value})}));
  const tag = h("input", {type: "text", maxLength: 200, placeholder: "a tag, then Enter", autocomplete: "off"});
  const form = h("form", {className: "panel", onsubmit: event => {
    event.preventDefault();
    const value = tag.value.trim();
    if (value && !query.tags.includes(value)) change({tags: [...query.tags, value]});
  }},
    choice("Relation", RELATIONS, query.relation, relation => change({relation})),
    h("label", {className: "choice"}, h("span", {}, "Tag"), tag),
    date("added_after", "Added from"), date("added_before", "until"),
    date("taken_after", "Taken from"), date("taken_before", "until"),
    choice("Format", FORMATS.map(one => [one, one || "Any"]), query.format, value => change({format: value})),
    h("label", {className: "check"}, h("input", {type: "checkbox", checked: query.larger, disabled: !query.upload && !query.like.length,
                                                 onchange: event => change({larger: event.target.checked})}), "Larger than yours only"),
    h("button", {type: "button", className: "quiet", onclick: () => change(Object.fromEntries(FILTERS.map(name => [name, EMPTY[name]])))}, "Clear all"));
  return form;
}

function advanced(query, change) {
  const list = h("div", {className: "weights"}, h("p", {className: "soft"}, "Asking who searches …"));
  states().then(rows => fill(list, rows.filter(one => one.kind === "retriever").map(one => weight(one, query, change))),
                error => { list.textContent = error.message; });
  return h("div", {className: "panel advanced"},
    h("fieldset", {}, h("legend", {}, "Weight of each retriever"), list,
      h("label", {className: "check"}, h("input", {type: "checkbox", checked: query.mirrored, onchange: event => change({mirrored: event.target.checked})}), "Find mirror images, too")),
    h("div", {id: "timings"}));
}

function weight(one, query, change) {
  const value = query.weights[one.name] ?? 1;
  const output = h("output", {}, value === 0 ? "off" : String(value));
  const slider = h("input", {type: "range", min: 0, max: 3, step: 0.25, value, disabled: one.state !== "ready", "aria-label": `Weight of ${one.name}`,
    oninput: event => { output.textContent = event.target.value === "0" ? "off" : event.target.value; },
    onchange: event => change({weights: {...query.weights, [one.name]: Number(event.target.value)}})});
  return h("label", {className: one.state === "ready" ? "" : "off"}, h("span", {}, one.name), slider, output);
}

async function share(query) {
  const part = query.upload ? " The uploaded picture is not part of it." : "";
  try {
    await navigator.clipboard.writeText(location.href);
    toast(`The link is copied.${part}`);
  } catch {
    toast(`The address of this page is the link.${part}`);
  }
}
