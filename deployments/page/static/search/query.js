/** A search: in the address of the page, and as a request to the service. */

import {ApiError, sendPictures, thumbnailFile} from "../api.js";

const PAGE_SIZE = 60;
const uploads = new Map();

export const EMPTY = Object.freeze({
  words: "", like: Object.freeze([]), upload: null, region: null, sort: "relevance", mirrored: true,
  weights: Object.freeze({}), relation: "", tags: Object.freeze([]), added_after: "", added_before: "",
  taken_after: "", taken_before: "", format: "", larger: false,
});
/** Fields that narrow a search down. */
export const FILTERS = ["relation", "tags", "added_after", "added_before", "taken_after", "taken_before", "format", "larger"];
const LISTS = ["tags"];
const FLAGS = {larger: false, mirrored: true};

/** Keep an uploaded picture for as long as the page is open. An address can't hold it: the state of
 * the history entry has the token that is returned. */
export function keepUpload(file) {
  const token = `${performance.timeOrigin}-${uploads.size}`;
  const kept = {file, url: URL.createObjectURL(file)};
  kept.size = draw(kept);
  uploads.set(token, kept);
  return token;
}

/** The sides of an uploaded picture in upright pixels; null for what is no picture. Where the browser
 * can't draw it, the service does. */
async function draw(kept) {
  try {
    const {width, height} = await dimensions(kept.file);
    return {width, height};
  } catch { /* A format such as HEIC. */ }
  try {
    const answer = await sendPictures("v1/thumbnail", null, [kept.file]);
    const [width, height] = answer.headers.get("X-Ambience-Size").split("x").map(Number);
    kept.url = URL.createObjectURL(await answer.blob());
    return {width, height};
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return null;
  }
}

async function dimensions(file) {
  const bitmap = await createImageBitmap(file);
  const {width, height} = bitmap;
  bitmap.close();
  return {width, height};
}

export const upload = token => uploads.get(token);

export function parse(parameters, {upload: token = null} = {}) {
  const query = {...EMPTY, upload: token};
  for (const [name, value] of parameters) {
    if (LISTS.includes(name)) query[name] = [...query[name], value];
    else if (name in FLAGS) query[name] = value === "yes";
    else if (name === "like") query.like = value.split(",").map(Number).filter(Number.isSafeInteger);
    else if (name === "region") query.region = value.split(",").map(Number);
    else if (name === "weights") query.weights = Object.fromEntries(value.split(",").map(one => one.split(":")).map(([key, number]) => [key, Number(number)]));
    else if (name in EMPTY && name !== "upload") query[name] = value;
  }
  if (query.region?.length !== 4 || query.region.some(Number.isNaN)) query.region = null;
  return query;
}

export function format(query) {
  const parameters = new URLSearchParams();
  for (const [name, unset] of Object.entries(EMPTY)) {
    const value = query[name];
    if (LISTS.includes(name)) value.forEach(one => parameters.append(name, one));
    else if (name in FLAGS) { if (value !== unset) parameters.set(name, value ? "yes" : "no"); }
    else if (name === "weights") {
      const changed = Object.entries(value).filter(([, weight]) => weight !== 1);
      if (changed.length) parameters.set(name, changed.map(one => one.join(":")).join(","));
    } else if (name === "region") { if (value) parameters.set(name, value.map(one => Number(one.toFixed(4))).join(",")); }
    else if (name === "like") { if (value.length) parameters.set(name, value.join(",")); }
    else if (name !== "upload" && value && value !== unset) parameters.set(name, value);
  }
  return `#/search${parameters.size ? `?${parameters}` : ""}`;
}

export const isEmpty = query => !query.words && !query.like.length && !query.upload;
export const hasPicture = query => Boolean(query.upload || query.like.length);
export const narrowed = query => FILTERS.filter(name => LISTS.includes(name) ? query[name].length : query[name]);

/** Whether the service is to order by date; bands make no sense then. */
export const isByDate = query => query.sort !== "relevance";

/**
 * The request of a page of results: the JSON and the pictures.
 *
 * `region` holds fractions of the query picture. The service takes a region of an uploaded picture
 * only, so a stored one goes up as its preview.
 */
export async function asRequest(query, retrievers, cursor) {
  const wish = {k: PAGE_SIZE, mirrored: query.mirrored,
                min_confidence: isByDate(query) ? 0.5 : 0};
  if (isByDate(query)) wish.sort = query.sort;
  if (!hasPicture(query)) wish.collapse = true;
  if (cursor) wish.cursor = cursor;
  if (query.words) wish.composed = query.words;
  const files = query.upload ? [upload(query.upload).file] : [];
  if (query.region && (files.length || query.like.length)) {
    if (!files.length) files.push(await thumbnailFile(query.like[0]));
    const sides = query.upload ? await upload(query.upload).size : await dimensions(files[0]);
    if (sides) wish.region = query.region.map((share, at) => share * [sides.width, sides.height][at % 2]);
  }
  if (!(query.region && !query.upload)) wish.image_ids = [...query.like];
  const asked = retrievers.filter(name => query.weights[name] !== 0);
  if (Object.values(query.weights).some(weight => weight !== 1)) {
    wish.retrievers = Object.fromEntries(asked.map(name => [name, query.weights[name] ?? 1]));
  }
  const filter = asFilter(query);
  if (Object.keys(filter).length) wish.filter = filter;
  return {wish, files};
}

function asFilter(query) {
  const filter = {};
  if (query.tags.length) filter.tags = query.tags;
  if (query.format) filter.formats = [query.format];
  if (query.larger && hasPicture(query)) filter.larger = true;
  for (const name of ["added_after", "added_before", "taken_after", "taken_before"]) {
    if (query[name]) filter[name] = moment(query[name], name);
  }
  return filter;
}

/** The beginning of a day, or the end of one that is the last: here for what was added, and for what
 * was taken by the camera's clock, which knows no time zone. */
function moment(day, name) {
  const made = new Date(name.startsWith("taken") ? `${day}T00:00:00Z` : `${day}T00:00:00`);
  if (Number.isNaN(made.getTime())) return day;
  if (name.endsWith("before")) made.setDate(made.getDate() + 1);
  return made.toISOString();
}
