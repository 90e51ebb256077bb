/** The states of the retrievers, asked for once in a while. */

import {getJson} from "./api.js";

const FRESH_MS = 30000;
let asked = null, at = -Infinity;

/** The rows of GET /v1/retrievers, at most half a minute old. */
export function states() {
  if (!asked || performance.now() - at > FRESH_MS) {
    at = performance.now();
    asked = getJson("v1/retrievers").then(body => body.retrievers);
    asked.catch(() => { asked = null; });
  }
  return asked;
}

/** The retrievers of an `X-Ambience-Missing` header, with their reasons. */
export function missing(response) {
  const header = response.headers.get("X-Ambience-Missing") || "";
  return [...header.matchAll(/([^,;=]+);reason="((?:[^"\\]|\\.)*)"/g)]
    .map(([, name, reason]) => ({name: name.trim(), reason: reason.replace(/\\(.)/g, "$1")}));
}

/** The parts of a `Server-Timing` header, slowest first. */
export function timings(response) {
  const header = response.headers.get("Server-Timing") || "";
  return [...header.matchAll(/([\w-]+);dur=([\d.]+)/g)].map(([, name, ms]) => ({name, ms: Number(ms)}))
    .sort((one, other) => other.ms - one.ms);
}
