/** What the API's values are called in sentences. */

const CHANGES = {mirrored: "mirrored", turned: "turned", bordered: "with a border", negative: "negative"};
const many = (count, one, several = `${one}s`) => `${count.toLocaleString()} ${count === 1 ? one : several}`;
export {many};

export const percent = share => {
  const value = 100 * share;
  return value > 0 && value < 1 ? "<1 %" : value > 99 && value < 100 ? "99 %" : `${Math.round(value)} %`;
};

export function bytes(count) {
  if (count === undefined || count === null) return "";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  while (Math.round(count) >= 1000 && at < units.length - 1) { count /= 1000; at += 1; }
  return `${count < 10 && at ? count.toFixed(1) : Math.round(count)} ${units[at]}`;
}

/** A date of the API: ISO 8601 or seconds since the epoch. A date taken has no time zone. */
export function date(value) {
  if (value === undefined || value === null) return null;
  const made = typeof value === "number" ? new Date(1000 * value) : new Date(value);
  return Number.isNaN(made.getTime()) ? null : made;
}

/** The day of a hit: by the camera's clock, or else on which it was added. */
export function dayOf(hit) {
  const made = date(hit.taken) || date(hit.created);
  const options = {weekday: "long", year: "numeric", month: "long", day: "numeric", ...(hit.taken && {timeZone: "UTC"})};
  return made ? made.toLocaleDateString(undefined, options) : "Without a date";
}

export const moment = made => made.toLocaleString(undefined, {dateStyle: "medium", timeStyle: "short"});

export function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/** Bands of results: hits that say the same of the query. */
export function band(hit) {
  if (hit.relation === "same" || hit.relation === "edited") return "copies";
  if (hit.relation === "part") return "scene";
  return hit.confidence === undefined || hit.confidence >= 0.5 ? "alike" : "unlikely";
}

/** Whether one of both pictures lies in the other, as far as their shares of the overlap tell. */
function lies(hit) {
  const [query, image] = hit.overlap || [0, 0];
  if (Math.max(query, image) < 0.85) return null;
  return query < image ? "image" : "query";
}

/** What a verified hit is to the query picture, as a noun: for the verdict. */
export function kind(hit) {
  if (hit.relation === "same") return "copy";
  if (hit.relation === "edited") return "edited copy";
  if (hit.relation !== "part") return "look";
  return {image: "crop", query: "larger picture"}[lies(hit)] || "of the same scene";
}

/** How a hit relates to the query picture, in short phrases: `crop 41 %`, `mirrored`. */
export function relation(hit) {
  const changes = (hit.changes || []).map(one => CHANGES[one] || one);
  // Of a part, only the retrievers say so.
  if (hit.relation === "part" && Object.values(hit.retrievers || {}).some(row => row.mirrored)) changes.push("mirrored");
  const of = lies(hit);
  if (hit.relation === "same") return changes.length ? changes : ["the same picture"];
  if (hit.relation === "edited") return ["edited", ...changes];
  if (hit.relation === "part" && of === "image") return [`crop ${percent(hit.overlap[0])}`, ...changes];
  if (hit.relation === "part" && of === "query") return [`yours is ${percent(hit.overlap[1])} of it`, ...changes];
  if (hit.relation === "part") return ["the same scene", ...changes];
  return hit.relation === "shares" ? ["shares an element"] : [];
}

const ALIKE = {
  phash: "similar layout", color: "similar colours", local: "similar details", global: "similar things",
  image_text: "similar content", copy: "similar picture", text: "text",
};

/** Why a hit was found, in short phrases: its relation, then the words that were found in it. */
export function reasons(hit) {
  const found = relation(hit);
  const rows = Object.entries(hit.retrievers || {});
  if (!found.length) {
    const sure = rows.filter(([, row]) => row.confidence === undefined || row.confidence >= 0.5);
    const named = (sure.length ? sure : rows.sort((one, other) => one[1].rank - other[1].rank).slice(0, 1));
    found.push(...named.filter(([, row]) => !row.matched).map(([name]) => ALIKE[name] || name));
    if (named.some(([, row]) => row.mirrored)) found.push("mirrored");
  }
  for (const [, row] of rows) {
    const words = [...new Set((row.matched || []).map(one => one.found))];
    if (words.length) found.push(`text ${words.slice(0, 4).join(" ")}`);
  }
  return found;
}

/** The size of a picture beside another one's, in words; empty where they are about the same. */
export function size(image, query) {
  if (!image.width || !query?.width) return "";
  const ratio = Math.max(image.width, image.height) / Math.max(query.width, query.height);
  if (ratio > 0.95 && ratio < 1.05) return "";
  const named = [[1 / 4, "a quarter of the size"], [1 / 3, "a third of the size"], [1 / 2, "half size"],
                 [2, "twice as large"], [3, "three times as large"]];
  const near = named.find(([value]) => Math.abs(ratio / value - 1) < 0.06);
  if (near) return near[1];
  return ratio < 1 ? `${Math.round(100 * ratio)} % of the size` : `${ratio.toFixed(1)} times as large`;
}

/** What an image is called: its file's name, or else its id. */
export function nameOf(image) {
  const name = image.upload_name || image.file_name;
  return name && !/^\d*(\.online)?$/.test(name) ? name : `Image ${image.image_id}`;
}

/** The numbers of a hit, as pairs of a name and a value. */
export function numbers(hit) {
  const rows = [["score", hit.score?.toFixed(3)], ["confidence", hit.confidence?.toFixed(2)],
                ["overlap", hit.overlap?.map(percent).join(" / ")]];
  for (const [name, row] of Object.entries(hit.retrievers || {})) {
    const said = [`#${row.rank + 1}`];
    if (row.inliers !== undefined) said.push(`${row.inliers} inliers`);
    if (row.distance !== undefined) said.push(`distance ${short(row.distance)}`);
    if (row.confidence !== undefined) said.push(row.confidence.toFixed(2));
    rows.push([name, said.join(", ")]);
  }
  return rows.filter(([, value]) => value);
}

const short = number => Number.isInteger(number) || number >= 10
  ? number.toLocaleString(undefined, {notation: "compact", maximumFractionDigits: 1}) : number.toFixed(3);

/** The verdict on all likely hits: `1 copy, half size; 2 crops; 14 look alike`. */
export function verdict(hits, query, isWhole) {
  const counts = new Map();
  for (const hit of hits) {
    const one = band(hit) === "alike" ? "look" : kind(hit);
    counts.set(one, (counts.get(one) || 0) + 1 + (hit.copies?.count || 0));
  }
  const said = [];
  const copies = hits.filter(hit => kind(hit) === "copy");
  const say = (name, words) => counts.has(name) && said.push(words(counts.get(name)));
  say("copy", count => {
    const sizes = count === 1 ? size(copies[0], query) : "";
    const changes = count === 1 ? (copies[0].changes || []).map(one => CHANGES[one]) : [];
    return [many(count, "copy", "copies"), ...changes, ...(sizes ? [sizes] : [])].join(", ");
  });
  say("edited copy", count => many(count, "edited copy", "edited copies"));
  say("crop", count => many(count, "crop"));
  say("larger picture", count => `${many(count, "picture")} that ${count === 1 ? "contains" : "contain"} yours`);
  say("of the same scene", count => `${count} of the same scene`);
  say("look", count => `${count}${isWhole ? "" : "+"} ${count === 1 && isWhole ? "looks" : "look"} alike`);
  return said.join("; ");
}
