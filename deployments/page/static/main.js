/** The views, by the fragment of the address: it is shared by a link, and never sent to a server. */

import {at, fill, h, isTyping} from "./dom.js";
import {listenForFiles, openAdding} from "./adding.js";
import {closeCompare, isComparing} from "./compare/compare.js";
import {current, go, onNavigation} from "./navigation.js";
import * as search from "./search/search.js";
import * as duplicates from "./duplicates/duplicates.js";
import * as state from "./state/state.js";

const VIEWS = {search, duplicates, state};
const TITLES = {search: "ambience", duplicates: "Duplicates · ambience", state: "State · ambience"};
const KEYS = [
  ["/", "type words"], ["← → ↑ ↓", "move among results"], ["Enter", "search from a result"],
  ["C", "compare with a result"], ["N", "show numbers"],
  ["1 2 3 4 5", "compare: side by side, blink, curtain, difference, points"],
  ["Space", "compare: show the other picture while held"], ["+ − 0", "compare: zoom in, out, fit"],
  ["← →", "duplicates: keep left, keep right"], ["B A D L", "duplicates: both, alternates, different, later"],
  ["U", "duplicates: undo"], ["Esc", "close"],
];
const WORDS = [
  ["snowy peak", "what these words describe"], ["-people", "unlike this"], ["~123", "like image 123"],
  ["#beach", "only with this tag"], ["\"trail closed\"", "only with exactly this text"],
];
let shown = null;

function show() {
  const {view, parameters, state: kept} = current();
  const name = view in VIEWS ? view : "search";
  if (name !== shown) {
    VIEWS[shown]?.leave?.();
    for (const one of Object.keys(VIEWS)) at(`view-${one}`).hidden = one !== name;
    for (const link of document.querySelectorAll("nav [data-view]")) {
      if (link.dataset.view === name) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    document.title = TITLES[name];
    shown = name;
    scrollTo(0, kept.scrolled || 0);
  }
  closeCompare();
  VIEWS[name].show(parameters, kept);
}

function showKeys() {
  const list = rows => h("dl", {className: "keys"}, rows.map(([keys, what]) => h("div", {}, h("dt", {}, h("kbd", {}, keys)), h("dd", {}, what))));
  fill(at("keys"), h("form", {method: "dialog"}, h("h2", {id: "keys-title"}, "Keys"), list(KEYS),
                     h("h3", {}, "Words to search by"), list(WORDS),
                     h("div", {className: "row end"}, h("button", {className: "primary"}, "Close"))));
  at("keys").showModal();
}

at("help").onclick = showKeys;
at("add").onclick = () => openAdding();
at("skip").onclick = event => {
  event.preventDefault();
  at("main").focus();
};
addEventListener("keydown", event => {
  if (isTyping(event) || document.querySelector("dialog[open]")) return;
  if (event.key === "/") {
    event.preventDefault();
    if (shown !== "search") go("#/search");
    at("words").focus();
  } else if (event.key === "?") showKeys();
  else VIEWS[shown].keydown?.(event);
});
listenForFiles(files => search.searchByFile(files[0]));
let address = location.href;
onNavigation(() => {
  // Back from a comparison leads to the results as they are.
  const isOnlyClosing = isComparing() && location.href === address;
  address = location.href;
  if (isOnlyClosing) closeCompare();
  else show();
});
show();
