/** The groups to decide, a few ahead of the reader: pages come from the service. */

import {getJson, preload} from "../api.js";
import {related} from "../compare/pairs.js";

const PAGE = 12;
const AHEAD = 4;
const PREFETCHED = 3;

/** A queue of one level, or of all where it is empty. `changed` is called when groups have come. */
export function makeQueue(level, changed) {
  const queue = {level, groups: [], levels: [], pending: 0, head: 0, isWhole: false, failure: null};
  const seen = new Set();
  let cursor = null, loading = null;

  queue.more = () => {
    if (queue.isWhole || loading) return loading;
    const parameters = new URLSearchParams({limit: PAGE, ...(level && {level}), ...(cursor && {cursor})});
    loading = getJson(`v1/duplicates?${parameters}`).then(body => {
      const fresh = body.groups.filter(one => !seen.has(one.group_id));
      fresh.forEach(one => seen.add(one.group_id));
      queue.groups.push(...fresh);
      // Later pages may be older than decisions that are on their way.
      if (!cursor) queue.levels = body.levels;
      Object.assign(queue, {pending: body.pending, head: body.head, failure: null});
      cursor = body.next_cursor;
      queue.isWhole = !cursor;
    }, error => { queue.failure = error; }).finally(() => { loading = null; changed(); });
    return loading;
  };

  /** Take the first group away, and see that the next ones are there. */
  queue.drop = () => {
    queue.groups.shift();
    queue.prefetch();
  };

  /** Put the first group behind all others that are here. */
  queue.later = () => {
    queue.groups.push(queue.groups.shift());
    queue.prefetch();
  };

  queue.prefetch = () => {
    if (queue.groups.length < AHEAD && !queue.isWhole) queue.more();
    for (const group of queue.groups.slice(1, 1 + PREFETCHED)) {
      for (const image of group.images.slice(0, 2)) preload(image.image_id).catch(() => {});
      related(sides(group, 1)).catch(() => {});
    }
  };
  return queue;
}

/** The best image of a group and another one, as the sides of a comparison. */
export function sides(group, other) {
  const side = image => ({image_id: image.image_id, name: image.upload_name || image.file_name});
  return {left: side(group.images[0]), right: side(group.images[other])};
}
