/** Identical files among the hits of a picture, which are shown as one with a count. */

import {getJson} from "../api.js";

/** Two hits with the same key are the same file, as far as all that a hit says can tell. */
function keyOf({relation, changes, width, height, bytes, format}) {
  return relation === "same" && bytes ? [changes, width, height, bytes, format].join() : null;
}

/** Fold new hits into those before them. Returns the hits that stay, and the earlier ones that have
 * grown. */
export function fold(earlier, found) {
  const first = new Map();
  for (const hit of earlier) if (keyOf(hit)) first.set(keyOf(hit), hit);
  const hits = [], grown = new Set();
  for (const hit of found) {
    const key = keyOf(hit), into = key && first.get(key);
    if (!into) {
      if (key) first.set(key, hit);
      hits.push(hit);
      continue;
    }
    into.copies ??= {count: 0, image_ids: [], hits: []};
    into.copies.count += 1;
    into.copies.image_ids.push(hit.image_id);
    into.copies.hits?.push(hit);
    if (earlier.includes(into)) grown.add(into);
  }
  return {hits, grown: [...grown]};
}

/** The hits that are folded into one. Of those that the service has folded, only their rows are
 * known. */
export async function folded({copies}) {
  if (copies.hits) return copies.hits;
  const rows = await Promise.allSettled(copies.image_ids.map(id => getJson(`v1/images/${id}`)));
  return rows.filter(one => one.status === "fulfilled").map(({value}) => ({...value, relation: "same", retrievers: {}}));
}
