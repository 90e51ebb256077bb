/** One found image: its picture leads on to a search from it, its words to the comparison. */

import {thumbnail} from "../api.js";
import {h} from "../dom.js";
import {makeCurrent} from "./grid.js";
import {EMPTY, format} from "./query.js";
import {nameOf, numbers, reasons, size} from "../words.js";

const NARROWEST = 0.5, WIDEST = 3;

const aspectOf = (width, height) => Math.min(WIDEST, Math.max(NARROWEST, width / height));

/** Lay the tile out by the sides of its picture; a hit without them takes those of its thumbnail. */
function shape(item, image, {width, height}) {
  const set = (across, down) => item.style.setProperty("--aspect", aspectOf(across, down));
  if (width && height) set(width, height);
  else image.addEventListener("load", () => set(image.naturalWidth, image.naturalHeight));
}

/** A tile; `compare` is called when the reader wants to see why. `query` has the sides of the query
 * picture where they are known; `unfold` is called to see the copies that are folded into it. */
export function tile(hit, root, compare, query = null, unfold = null) {
  const name = nameOf(hit);
  const isCopy = hit.relation === "same" || hit.relation === "edited";
  const why = [...reasons(hit), isCopy && size(hit, query)].filter(Boolean).join(", ");
  const image = thumbnail(hit.image_id, name);
  const item = h("li", {className: "tile", "data-id": hit.image_id},
    h("a", {className: "picture", href: format({...EMPTY, like: [hit.image_id]}), tabIndex: -1,
            "aria-label": `${name}: ${why || "stored image"}. Search from it`}, image),
    h("button", {type: "button", className: "why", tabIndex: -1, onclick: compare, title: "Compare",
                 "aria-label": `Compare with ${name}: ${why || "look at it"}`},
      h("span", {}, why || name)),
    hit.copies?.count > 0 && h("button", {type: "button", className: "count", tabIndex: -1, onclick: unfold, "aria-label": `Show ${hit.copies.count} more of ${name}`}, `+${hit.copies.count}`),
    table(hit));
  item.addEventListener("focusin", () => makeCurrent(item, root));
  shape(item, image, hit);
  return item;
}

function table(hit) {
  const rows = numbers(hit);
  return rows.length > 0 && h("dl", {className: "numbers"}, rows.map(([key, value]) => h("div", {}, h("dt", {}, key), h("dd", {}, value))));
}

