/** How two pictures relate, from the service. */

import {getJson, sendPictures} from "../api.js";

const KEPT = 40;
const known = new Map();

const nameOf = side => side.image_id ?? side.url;

/** The answer of POST /v1/compare for a pair. A side is `{image_id}` or `{file, url}`. */
export function related({left, right}) {
  const key = `${nameOf(left)} ${nameOf(right)}`;
  if (!known.has(key)) {
    known.set(key, ask(left, right));
    known.get(key).catch(() => known.delete(key));
    if (known.size > KEPT) known.delete(known.keys().next().value);
  }
  return known.get(key);
}

async function ask(left, right) {
  const ids = [left, right].filter(side => side.image_id !== undefined).map(side => side.image_id);
  const files = [left, right].filter(side => side.file).map(side => side.file);
  return (await sendPictures("v1/compare", {image_ids: ids}, files)).json();
}

const rows = new Map();

/** The row of a stored image. */
export function rowOf(id) {
  if (!rows.has(id)) {
    rows.set(id, getJson(`v1/images/${id}`));
    rows.get(id).catch(() => rows.delete(id));
    if (rows.size > KEPT) rows.delete(rows.keys().next().value);
  }
  return rows.get(id);
}
