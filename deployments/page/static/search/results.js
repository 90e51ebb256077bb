/** The results of a search, as a verdict and bands of tiles that load as one scrolls. */

import {ApiError, getJson, request, sendPictures} from "../api.js";
import {announce, at, fill, h, notice, whenNear} from "../dom.js";
import {openAdding} from "../adding.js";
import {openCompare} from "../compare/compare.js";
import {missing, states, timings} from "../retrievers.js";
import {band, dayOf, kind, many, nameOf, verdict} from "../words.js";
import {fold, folded} from "./folding.js";
import {makeCurrent} from "./grid.js";
import {EMPTY, asRequest, format, hasPicture, isByDate, narrowed, upload} from "./query.js";
import {tile} from "./tile.js";

const BANDS = {copies: "Copies", scene: "Crops and the same scene", alike: "Look alike"};
const KEPT = 12;
const AHEAD = "900px";
const BROWSED = 60;
/** Earlier searches by what was asked, so that going back shows them at once. */
const kept = new Map();
let run = null, sentinel = null;

const keyOf = query => `${format(query)} ${query.upload || ""}`;

export function showResults(query, change, state) {
  const key = keyOf(query);
  run?.abort.abort();
  run = kept.get(key);
  if (run) {
    run.abort = new AbortController();
    run.change = change;
    draw(run);
    scrollTo(0, state.scrolled || 0);
    if (!run.isWhole) watch(run);
  } else {
    run = begin(key, query, change);
    fill(at("found"), skeleton());
    scrollTo(0, 0);
    load(run);
  }
  if (state.compare !== undefined) compare(run, run.hits.findIndex(hit => hit.image_id === state.compare));
}

/** Search again, or list again: the collection has changed. */
export function refresh() {
  kept.clear();
  if (!run) return;
  if (run.query) showResults(run.query, run.change, {});
  else browse(EMPTY, 0);
}

function begin(key, query, change) {
  return {key, query, change, hits: [], cursor: null, isWhole: false, missing: [], timings: [], ms: 0,
          abort: new AbortController(), showsUnlikely: false, size: sizeOf(query)};
}

/** The sides of the query picture in upright pixels; null where there is none. */
async function sizeOf(query) {
  if (query.upload) return upload(query.upload).size;
  if (!query.like.length) return null;
  return getJson(`v1/images/${query.like[0]}`).catch(() => null);
}

async function load(mine) {
  mine.isLoading = true;
  const began = performance.now();
  try {
    const names = mine.query.weights === EMPTY.weights ? [] : (await states()).filter(one => one.kind === "retriever").map(one => one.name);
    const {wish, files} = await asRequest(mine.query, names, mine.cursor);
    const options = {signal: mine.abort.signal};
    const response = files.length ? await sendPictures("v1/search", wish, files, options)
      : await request("v1/search", {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(wish), ...options});
    const body = await response.json();
    if (mine !== run) return;
    const isFirst = mine.cursor === null;
    if (isFirst) {
      mine.size = await mine.size;
      Object.assign(mine, {missing: missing(response), timings: timings(response), ms: performance.now() - began, truncated: body.truncated});
    }
    const found = body.hits.filter(hit => !(mine.query.like.includes(hit.image_id) && !mine.query.region)).filter(hit => fits(hit, mine.query.relation));
    const {hits, grown} = fold(mine.hits, found);
    mine.unapplied = body.unapplied || [];
    mine.hits.push(...hits);
    mine.cursor = body.next_cursor || null;
    mine.isWhole = !mine.cursor;
    // Likely hits come first as a rule: a page without any is followed only on demand.
    mine.isPaused = !hits.some(hit => band(hit) !== "unlikely") && !mine.showsUnlikely;
    keep(mine);
    if (isFirst) draw(mine);
    else append(mine, hits, grown);
    if (isFirst) announce(headline(mine));
    watch(mine);
  } catch (error) {
    if (error.name === "AbortError" || mine !== run) return;
    if (!(error instanceof ApiError)) throw error;
    const again = h("button", {type: "button", onclick: () => { fill(at("found"), skeleton()); load(mine); }}, "Try again");
    fill(at("found"), notice("error", error.message, again));
  } finally {
    mine.isLoading = false;
  }
}

function keep(mine) {
  kept.delete(mine.key);
  kept.set(mine.key, mine);
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
}

function fits(hit, relation) {
  if (!relation) return true;
  if (relation === "alike") return band(hit) === "alike";
  if (relation === "part") return hit.relation === "part";
  return kind(hit) === (relation === "edited" ? "edited copy" : "copy");
}

function skeleton() {
  const sides = [1.5, 0.75, 1.33, 1.5, 1, 1.78, 0.75, 1.5, 1.33, 1.5];
  return h("ul", {className: "tiles skeleton", "aria-hidden": "true"}, sides.map(side => h("li", {className: "tile", style: {"--aspect": side}}, h("span", {className: "picture"}))));
}

function headline(mine) {
  const likely = mine.hits.filter(hit => band(hit) !== "unlikely");
  if (!likely.length) return hasPicture(mine.query) ? "Nothing found that is likely the same." : "Nothing found.";
  if (!hasPicture(mine.query)) return `${likely.length}${mine.isWhole ? "" : "+"} found`;
  return verdict(likely, mine.size, mine.isWhole);
}

/** Draw all hits of a search. */
function draw(mine) {
  const found = at("found");
  Object.assign(mine, {lists: {}, unlikely: null});
  sentinel = h("div", {className: "sentinel"});
  const seconds = `${(mine.ms / 1000).toFixed(2)} s`;
  const title = h("h2", {className: "verdict"}, headline(mine));
  mine.title = title;
  fill(found, h("div", {className: "verdict-row"}, title, h("span", {className: "soft"}, seconds)),
       mine.truncated && h("p", {className: "soft"}, "Your picture is cut short or damaged: it was searched by what is there."));
  mine.bands = h("div", {className: "bands"});
  found.append(mine.bands, sentinel);
  quiet(mine);
  timing(mine);
  append(mine, mine.hits);
  if (!mine.hits.some(hit => band(hit) !== "unlikely")) nothing(mine);
}

function append(mine, hits, grown = []) {
  for (const hit of hits) listFor(mine, hit).append(tileOf(mine, hit));
  for (const hit of grown) at("found").querySelector(`.tile[data-id="${hit.image_id}"]`)?.replaceWith(tileOf(mine, hit));
  if (mine.unlikely) mine.unlikely.count.textContent = `${mine.hits.filter(hit => band(hit) === "unlikely").length}${mine.isWhole ? "" : "+"}`;
  mine.title.textContent = headline(mine);
  const first = at("found").querySelector(".tile");
  if (first && !at("found").querySelector(".tile.current")) makeCurrent(first, at("found"));
}

function tileOf(mine, hit) {
  const item = tile(hit, at("found"), () => compare(mine, mine.hits.indexOf(hit)), mine.size, () => unfold(mine, hit, item));
  return item;
}

/** Show the copies that were folded into a hit, after it. */
async function unfold(mine, hit, item) {
  const hits = await folded(hit);
  delete hit.copies;
  mine.hits.splice(mine.hits.indexOf(hit) + 1, 0, ...hits);
  const one = tileOf(mine, hit);
  item.replaceWith(one);
  one.after(...hits.map(other => tileOf(mine, other)));
  makeCurrent(one, at("found"));
  one.querySelector(".why").focus();
}

function listFor(mine, hit) {
  const name = band(hit);
  if (name === "unlikely") return unlikelyList(mine);
  const key = isByDate(mine.query) ? dayOf(hit) : hasPicture(mine.query) ? name : "words";
  if (!mine.lists[key]) {
    mine.lists[key] = h("ul", {className: "tiles"});
    const heading = isByDate(mine.query) ? key : BANDS[key];
    const section = h("section", {className: "band"}, heading && h("h3", {}, heading), mine.lists[key]);
    if (mine.unlikely) mine.unlikely.fold.before(section);
    else mine.bands.append(section);
  }
  return mine.lists[key];
}

function unlikelyList(mine) {
  if (!mine.lists.unlikely) {
    mine.lists.unlikely = h("ul", {className: "tiles"});
    const count = h("span", {className: "count"});
    const fold = h("details", {className: "band unlikely", open: mine.showsUnlikely}, h("summary", {}, h("h3", {}, "Unlikely"), count), mine.lists.unlikely);
    fold.ontoggle = () => {
      mine.showsUnlikely = fold.open;
      if (fold.open) { mine.isPaused = false; watch(mine); }
    };
    mine.unlikely = {fold, count};
    mine.bands.append(fold);
  }
  return mine.lists.unlikely;
}

/** Load the next page when the end of this one comes near. */
function watch(mine) {
  mine.observer?.disconnect();
  if (mine.isWhole || mine.isPaused || mine !== run) return;
  mine.observer = whenNear(sentinel, AHEAD, () => { if (!mine.isLoading) load(mine); });
}

/** One line on who did not answer. */
function quiet(mine) {
  const line = at("quiet"), names = mine.missing.map(one => one.name);
  const parts = (mine.unapplied || []).map(one => one.part);
  line.hidden = !names.length && !parts.length;
  fill(line, names.length > 0 && `Searched without ${names.join(", ")}. `, parts.length > 0 && `Not taken into account: ${parts.join(", ")}. `,
       h("a", {href: "#/state"}, "Why, and what to do"));
}

function timing(mine) {
  const place = at("timings");
  if (!place || !mine.timings.length) return;
  const slowest = mine.timings[0].ms || 1;
  fill(place, h("p", {className: "legend"}, "Time"), h("ul", {className: "timings"}, mine.timings.map(({name, ms}) =>
    h("li", {}, h("span", {}, name), h("meter", {max: slowest, value: ms, "aria-label": name}), h("span", {}, `${ms.toFixed(0)} ms`)))));
}

/** "Nothing" is an answer, too: of what was compared, what was not, and what could be tried. */
async function nothing(mine) {
  const place = h("div", {className: "notice"});
  mine.bands.before(place);
  const tips = [];
  if (narrowed(mine.query).length) tips.push(h("a", {href: format({...EMPTY, words: mine.query.words, like: mine.query.like})}, "Search without filters"));
  if (mine.query.region) tips.push(h("button", {type: "button", className: "link", onclick: () => mine.change({region: null})}, "Search the whole picture"));
  if (mine.lists.unlikely) tips.push(h("button", {type: "button", className: "link", onclick: () => { mine.unlikely.fold.open = true; mine.unlikely.fold.scrollIntoView(); }}, "See what is nearest, though unlikely"));
  const what = hasPicture(mine.query) ? "No stored image is likely a copy, a crop or a look-alike of this picture."
    : `Nothing that is stored has to do with “${mine.query.words}”.`;
  const rows = await states().catch(() => []);
  const asked = rows.filter(one => one.kind === "retriever" && one.state === "ready" && (hasPicture(mine.query) || one.reads_text));
  const compared = asked.length && h("p", {}, `Compared with ${many(Math.max(...asked.map(one => one.count)), "image")} by ${asked.map(one => one.name).join(", ")}.`);
  const without = mine.missing.map(one => h("p", {className: "soft"}, `Not by ${one.name}: ${one.reason}`));
  fill(place, h("p", {className: "notice-title"}, what), compared, without, tips.length > 0 && h("p", {className: "row"}, tips));
}

/** Open the comparison with a hit; it leads on to the ones beside it. */
function compare(mine, index) {
  if (index < 0) return;
  const left = mine.query.upload ? {file: upload(mine.query.upload).file, url: upload(mine.query.upload).url, name: "Yours"}
    : mine.query.like.length ? {image_id: mine.query.like[0], name: `Image ${mine.query.like[0]}`} : null;
  const folded = () => mine.hits.filter(hit => mine.showsUnlikely || band(hit) !== "unlikely" || hit === mine.hits[index]);
  openCompare({
    at: () => folded().map(hit => ({left, right: {image_id: hit.image_id, name: nameOf(hit)}, hit})),
    index: folded().indexOf(mine.hits[index]),
  });
}

/** The collection itself, where nothing is searched for; an empty one invites pictures. */
export async function browse(query, scrolled = 0) {
  run?.abort.abort();
  const mine = run = {query: null, change: null, abort: new AbortController(), cursor: null, images: []};
  const found = at("found");
  at("quiet").hidden = true;
  const list = h("ul", {className: "tiles"});
  fill(found, skeleton());
  const more = async () => {
    const cursor = mine.cursor ? `&cursor=${mine.cursor}` : "";
    const body = await getJson(`v1/images?limit=${BROWSED}${cursor}`, {signal: mine.abort.signal});
    if (mine !== run) return;
    if (!mine.images.length) {
      if (!body.total) return fill(found, invite());
      sentinel = h("div", {className: "sentinel"});
      fill(found, h("div", {className: "verdict-row"}, h("h2", {className: "verdict"}, many(body.total, "picture"))), list, sentinel);
    }
    mine.images.push(...body.images);
    list.append(...body.images.map(image => tile({...image, retrievers: {}}, found, () => openCompare({
      at: () => mine.images.map(one => ({left: null, right: {image_id: one.image_id, name: nameOf(one)}, hit: {...one, retrievers: {}}})), index: mine.images.indexOf(image)}))));
    if (!found.querySelector(".tile.current")) makeCurrent(found.querySelector(".tile"), found);
    mine.cursor = body.next_cursor || null;
    if (scrolled) {
      // Coming back, all that lies before the place is loaded first.
      if (mine.cursor && document.documentElement.scrollHeight < scrolled + innerHeight) return more();
      scrollTo(0, scrolled);
      scrolled = 0;
    }
    if (!mine.cursor) return;
    whenNear(sentinel, AHEAD, () => more().catch(fail));
  };
  const fail = error => {
    if (error.name === "AbortError" || mine !== run) return;
    if (!(error instanceof ApiError)) throw error;
    fill(found, notice("error", error.message, h("button", {type: "button", onclick: () => browse(query)}, "Try again")));
  };
  await more().catch(fail);
}

function invite() {
  return h("div", {className: "notice invite"},
    h("p", {className: "notice-title"}, "Nothing is here yet."),
    h("p", {}, "Drop pictures anywhere on this page to add them, or index a folder:"),
    h("p", {}, h("code", {}, "ambience backfill FOLDER")),
    h("p", {}, h("button", {type: "button", className: "primary", onclick: () => openAdding()}, "Choose pictures")));
}
