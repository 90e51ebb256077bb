/** The search view: from the address to a query, and from the query to its results. */

import {at, toast} from "../dom.js";
import {onAdded} from "../adding.js";
import {go} from "../navigation.js";
import {showAsked} from "./asked.js";
import * as grid from "./grid.js";
import {EMPTY, format, keepUpload, parse, upload} from "./query.js";
import {browse, refresh, showResults} from "./results.js";
import {showTools} from "./tools.js";

let query = EMPTY;

/** Go to a search that differs from the present one; the results of the old one stay in the history. */
function change(fields, options) {
  const next = {...query, ...fields};
  go(format(next), {upload: next.upload}, options);
}

export function searchByFile(file) {
  const token = keepUpload(file);
  go(format({...EMPTY, mirrored: query.mirrored, weights: query.weights}), {upload: token});
}

export function show(parameters, state) {
  query = parse(parameters, state);
  if (document.activeElement !== at("words")) at("words").value = query.words;
  if (query.upload && !upload(query.upload)) {
    toast("The uploaded picture of this search is gone: choose it again.");
    query = {...query, upload: null};
  }
  showAsked(query, change);
  const isBrowsing = !query.words && !query.like.length && !query.upload;
  showTools(query, change);
  if (isBrowsing) browse(query, state.scrolled);
  else showResults(query, change, state);
}

export const keydown = event => {
  if (event.key === "n" || event.key === "N") at("tools").querySelector(".numbers-switch")?.click();
  else grid.keydown(event, at("found"));
};

at("bar").onsubmit = event => {
  event.preventDefault();
  change({words: at("words").value.trim()});
  at("words").blur();
};
at("words").addEventListener("keydown", event => {
  if (event.key !== "ArrowDown") return;
  event.preventDefault();
  grid.focusFirst(at("found"));
});
at("file").onchange = event => {
  const [file] = event.target.files;
  if (file) searchByFile(file);
  event.target.value = "";
};
onAdded(() => { if (!at("view-search").hidden) refresh(); });
