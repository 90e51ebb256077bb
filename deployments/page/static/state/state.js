/** The state view: who answers, what runs, how large the collection is, and a search to try it. */

import {ApiError, getJson, request, sendJson, thumbnail} from "../api.js";
import {announce, at, fill, h, notice} from "../dom.js";
import {timings} from "../retrievers.js";
import {bytes, date, duration, many, moment, nameOf} from "../words.js";
import {format, EMPTY} from "../search/query.js";

const OFTEN_MS = 2000, SELDOM_MS = 15000;
const DAY = 86400000, SHOWN_DAYS = 30, YEAR = 365;
let timer = 0, shown = 0;
const parts = {};

export function show() {
  const view = at("view-state");
  if (!parts.retrievers) build(view);
  refresh(++shown);
}

export function leave() {
  shown += 1;
  clearTimeout(timer);
}

function build(view) {
  for (const name of ["summary", "retrievers", "annotators", "jobs", "trial"]) parts[name] = h("div", {});
  const section = (title, ...children) => h("section", {className: "card"}, h("h2", {}, title), children);
  fill(view, h("h1", {className: "unseen"}, "State"), parts.summary,
    section("Retrievers", parts.retrievers), section("Annotators", parts.annotators),
    section("Jobs", parts.jobs), section("Test search", parts.trial));
  fill(parts.trial, h("p", {className: "soft"}, "Search by an image of the collection: it must find itself first."),
       h("button", {type: "button", onclick: tryIt}, "Run a test search"), h("div", {className: "trial", role: "status"}));
}

async function refresh(mine) {
  try {
    const [{retrievers}, {jobs}, changes, usage] = await Promise.all([
      getJson("v1/retrievers"), getJson("v1/jobs?limit=20"), getJson("v1/changes"), getJson("v1/usage")]);
    if (mine !== shown) return;
    const of = kind => retrievers.filter(one => one.kind === kind);
    summary(retrievers, usage);
    fill(parts.retrievers, table(of("retriever"), changes.head));
    fill(parts.annotators, of("annotator").length ? table(of("annotator"), null) : h("p", {className: "soft"}, "None is deployed."));
    fill(parts.jobs, jobs.length ? h("ul", {className: "jobs"}, jobs.map(job)) : h("p", {className: "soft"}, "No job has run yet. “ambience backfill FOLDER” indexes a folder."));
    timer = setTimeout(refresh, jobs.some(one => one.state === "running") ? OFTEN_MS : SELDOM_MS, mine);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (mine !== shown) return;
    fill(parts.summary, notice("error", error.message, h("button", {type: "button", onclick: () => refresh(shown)}, "Try again")));
    if (error.status !== 401) timer = setTimeout(refresh, SELDOM_MS, mine);
  }
}

function summary(retrievers, usage) {
  const searching = retrievers.filter(one => one.kind === "retriever");
  const ready = searching.filter(one => one.state === "ready");
  const memory = retrievers.reduce((sum, one) => sum + (one.bytes || 0), 0);
  const fact = (value, label, more) => h("div", {className: "fact"}, h("strong", {}, value), h("span", {}, label), more && h("span", {className: "soft kind"}, more));
  const onDisk = usage.store_bytes + usage.snapshot_bytes;
  fill(parts.summary, h("div", {className: "facts-row"},
    fact(usage.images.toLocaleString(), usage.images === 1 ? "picture" : "pictures"),
    fact(`${ready.length} of ${searching.length}`, "retrievers ready"),
    fact(bytes(onDisk), `on disk, ${bytes(usage.free_bytes)} free`, `${bytes(usage.preview_bytes)} of previews, ${bytes(usage.snapshot_bytes)} of snapshots`),
    fact(bytes(memory), "of indexes in memory"), parts.growth ||= h("div", {className: "growth"})));
  // Of many images the first answer takes a while.
  getJson(`v1/usage?days=${YEAR}`).then(({added}) => growth(added), () => {});
}

/** How many pictures came in the last days, as bars, and in the last week, month and year. */
function growth(added) {
  const since = days => added.slice(-days).reduce((sum, one) => sum + one, 0);
  const days = added.slice(-SHOWN_DAYS), most = Math.max(1, ...days);
  const bars = days.map((count, index) => h("span", {style: {height: `${count && Math.max(4, 100 * count / most)}%`}, title: `${dayBefore(days.length - 1 - index)}: +${count.toLocaleString()}`}));
  const spans = [[1, "today"], [7, "7 days"], [30, "30 days"], [YEAR, "year"]];
  fill(parts.growth,
    h("div", {className: "bars", role: "img", "aria-label": `Pictures added in the last ${days.length} days: ${since(SHOWN_DAYS).toLocaleString()}, at most ${Math.max(...days).toLocaleString()} a day`}, bars),
    h("dl", {}, spans.map(([count, name]) => h("div", {}, h("dt", {}, name), h("dd", {}, `+${since(count).toLocaleString()}`)))));
}

const dayBefore = days => new Date(Date.now() - days * DAY).toLocaleDateString(undefined, {day: "numeric", month: "short", timeZone: "UTC"});

const STATES = {ready: "Ready", loading: "Loading", unavailable: "Unavailable"};

function table(rows, head) {
  const isSearch = head !== null;
  const heads = ["Name", "State", isSearch ? "Images" : "", isSearch ? "Memory" : "", "Runs on"].filter(Boolean);
  return h("div", {className: "scrolling", tabIndex: 0, role: "region", "aria-label": isSearch ? "Retrievers" : "Annotators"}, h("table", {},
    h("thead", {}, h("tr", {}, heads.map(one => h("th", {}, one)))),
    h("tbody", {}, rows.map(one => line(one, head)))));
}

function line(one, head) {
  const behind = head === null ? 0 : head - one.applied_seq;
  const lag = one.state === "ready" && behind > 0 ? h("span", {className: "soft"}, ` ${many(behind, "change")} behind`) : null;
  const hint = one.state === "ready" ? null : advice(one);
  return h("tr", {className: one.state},
    h("th", {}, one.name, h("span", {className: "soft kind"}, one.extractor && one.extractor !== one.name ? one.extractor : "")),
    h("td", {className: "state"}, h("span", {className: `dot ${one.state}`, "aria-hidden": "true"}), STATES[one.state] || one.state,
      one.reason && h("p", {className: "soft"}, one.reason), hint && h("p", {className: "advice"}, hint), next(one)),
    head !== null && h("td", {className: "number"}, one.count.toLocaleString(), lag),
    head !== null && h("td", {className: "number"}, bytes(one.bytes), one.index && h("span", {className: "soft kind"}, one.index)),
    h("td", {}, runsOn(one)));
}

function next(one) {
  const other = one.next || one.previous;
  if (!other) return null;
  return h("p", {className: "soft"}, `${one.next ? "Next" : "Previous"} model: ${(STATES[other.state] || other.state).toLowerCase()}, ${many(other.count, "image")}${other.reason ? `, ${other.reason}` : ""}`);
}

function runsOn(one) {
  if (!one.replicas && one.state !== "ready") return "–";
  const device = (one.device || "cpu").startsWith("cpu") ? many(one.threads || 1, "thread") : `GPU (${one.device})`;
  const said = [device];
  if (one.replicas > 1) said.unshift(many(one.replicas, "replica"));
  if (one.shards > 1) said.unshift(many(one.shards, "shard"));
  return said.join(" × ");
}

/** What to do about a retriever that is not ready, as far as its reason tells. */
function advice({name, state, reason = ""}) {
  if (state === "loading") return "It will answer once it is loaded; nothing needs to be done.";
  const code = text => h("code", {}, text);
  if (/weights|no file|no folder|hub|download|network|offline/i.test(reason)) return ["Fetch its weights: ", code("ambience weights fetch"), ", or name a folder that has them in ", code("AMBIENCE_WEIGHTS"), "."];
  if (/install|module|package|import/i.test(reason)) return ["Install what it needs: ", code("make serve"), " without ", code("PROFILE=light"), "."];
  if (/memory|cuda|gpu/i.test(reason)) return ["Give it a device with more memory, or a smaller model, in ", code("serve_config.yaml"), "."];
  if (/deploy|replica/i.test(reason)) return ["Deploy it again: ", code("ambience deploy"), "; the log of the service says why it ended."];
  return ["See the log of the service; without it, take ", code(name), " out of ", code("serve_config.yaml"), "."];
}

function job(one) {
  const isRunning = one.state === "running";
  const began = date(one.began), ended = date(one.ended);
  const share = one.total ? one.done / one.total : null;
  const said = [one.step, one.total ? `${one.done.toLocaleString()} of ${one.total.toLocaleString()}` : one.done ? one.done.toLocaleString() : "",
                isRunning && one.rate ? `${one.rate < 10 ? one.rate.toFixed(1) : Math.round(one.rate)}/s` : "", isRunning && one.eta_seconds ? `${duration(one.eta_seconds)} left` : "",
                isRunning && one.slowest ? `waiting for ${one.slowest}` : ""];
  return h("li", {className: one.state},
    h("div", {className: "job-head"}, h("strong", {}, one.kind), h("span", {className: `badge ${one.state}`}, one.state), h("span", {className: "soft job-source"}, one.source || ""),
      isRunning && h("button", {type: "button", className: "quiet", onclick: event => cancel(event.target, one.job_id), "aria-label": `Cancel ${one.kind}`}, "Cancel")),
    isRunning && h("progress", {max: 1, ...(share === null ? {} : {value: share}), "aria-label": `Progress of ${one.kind}`}),
    h("p", {className: "soft"}, [...said, `${isRunning ? "since" : "began"} ${moment(began)}`, ended && `took ${duration((ended - began) / 1000)}`].filter(Boolean).join(" · ")),
    one.report?.error && h("p", {className: "bad-text"}, String(one.report.error)));
}

async function cancel(button, id) {
  button.disabled = true;
  try {
    await sendJson("POST", `v1/jobs/${encodeURIComponent(id)}:cancel`, {});
    button.textContent = "Ending …";
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    button.disabled = false;
    announce(error.message);
  }
}

async function tryIt(event) {
  const place = parts.trial.querySelector(".trial"), button = event.target;
  button.disabled = true;
  fill(place, h("p", {className: "soft"}, "Searching …"));
  try {
    const {images, total} = await getJson("v1/images?limit=100");
    if (!images.length) { fill(place, h("p", {}, "There is no picture to search by yet.")); return; }
    const image = images[Math.floor(Math.random() * images.length)];
    const began = performance.now();
    const response = await request("v1/search", {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({image_ids: [image.image_id], k: 5})});
    const ms = performance.now() - began;
    const {hits} = await response.json();
    const isRight = hits[0]?.image_id === image.image_id || (hits[0]?.relation === "same" && hits[0]?.confidence > 0.9);
    fill(place, h("div", {className: "trial-row"}, thumbnail(image.image_id, nameOf(image), {lazy: false}),
      h("div", {}, h("p", {className: isRight ? "good-text" : "bad-text"}, isRight ? `${nameOf(image)} found itself among ${many(total, "picture")} in ${ms.toFixed(0)} ms.` : `${nameOf(image)} did not find itself first.`),
        h("p", {className: "soft"}, timings(response).map(one => `${one.name} ${one.ms.toFixed(0)} ms`).join(" · ")),
        h("p", {}, h("a", {href: format({...EMPTY, like: [image.image_id]})}, "See the results")))));
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    fill(place, notice("error", error.message));
  } finally {
    button.disabled = false;
  }
}
