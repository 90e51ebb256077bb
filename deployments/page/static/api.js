/** Requests to the service. Every request carries the API key, once one was given. */

import {at, h} from "./dom.js";

const STORED = "ambience-key";
const THUMBNAILS = 400;

/** An answer that is no success, in words; `status` is 0 where there was none. */
export class ApiError extends Error {
  constructor(message, status, problem = {}) {
    super(message);
    this.status = status;
    this.problem = problem;
  }
}

let asking = null;

/** The answer of a request. Asks for a key where one is needed, and then asks again. */
export async function request(path, options = {}) {
  const key = sessionStorage.getItem(STORED);
  let response;
  try {
    response = await fetch(path, {...options, headers: {...options.headers, ...(key && {"X-API-Key": key})}});
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The service does not answer. Is it running?", 0);
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  if (response.status === 401) {
    if (key === sessionStorage.getItem(STORED)) {
      asking ??= askForKey(key, problem).finally(() => { asking = null; });
      if (!await asking) throw new ApiError("An API key is needed.", 401, problem);
    }
    return request(path, options);
  }
  throw new ApiError(sentence(response, problem), response.status, problem);
}

export async function getJson(path, options) {
  return (await request(path, options)).json();
}

export function sendJson(method, path, value) {
  const options = {method, headers: {"Content-Type": "application/json"}, body: JSON.stringify(value)};
  return request(path, options);
}

/** A multipart request of JSON under `query` and pictures. */
export function sendPictures(path, query, files, options = {}) {
  const form = new FormData();
  if (query) form.append("query", JSON.stringify(query));
  for (const file of files) form.append("image", file);
  return request(path, {method: "POST", body: form, ...options});
}

function sentence(response, problem) {
  const again = response.headers.get("Retry-After");
  const said = problem.detail || problem.title || `${response.status} ${response.statusText}`;
  return again ? `${said} Try again in ${again} s.` : said;
}

/** Show the dialog that asks for a key; resolves to whether one was given. */
function askForKey(refused, problem) {
  const dialog = at("key-dialog"), field = at("key-field");
  at("key-note").textContent = refused ? `That key was not accepted: ${problem.detail || "unknown key"}`
    : "This service answers requests with an API key only. The key is kept until this tab is closed.";
  field.value = "";
  dialog.returnValue = "";
  at("key-cancel").onclick = () => dialog.close();
  dialog.showModal();
  field.focus();
  return new Promise(resolve => {
    dialog.addEventListener("close", () => {
      const key = field.value.trim();
      if (dialog.returnValue === "use" && key) sessionStorage.setItem(STORED, key);
      resolve(dialog.returnValue === "use" && key !== "");
    }, {once: true});
  });
}

export const thumbnailPath = id => `v1/images/${id}/thumbnail`;

const shown = new Map();

/** The URL of a thumbnail: its own, or where a key is needed, which <img> can't send, of a copy. */
async function thumbnailUrl(id) {
  if (!sessionStorage.getItem(STORED)) return thumbnailPath(id);
  if (!shown.has(id)) {
    shown.set(id, request(thumbnailPath(id)).then(answer => answer.blob()).then(URL.createObjectURL));
    shown.get(id).catch(() => shown.delete(id));
    for (const old of [...shown.keys()].slice(0, -THUMBNAILS)) forget(old);
  }
  return shown.get(id);
}

function forget(id) {
  shown.get(id).then(URL.revokeObjectURL, () => {});
  shown.delete(id);
}

const wanted = new IntersectionObserver(entries => {
  for (const {target, isIntersecting} of entries) {
    if (!isIntersecting) continue;
    wanted.unobserve(target);
    load(target, target.dataset.id);
  }
}, {rootMargin: "600px"});

async function load(image, id) {
  try {
    image.src = await thumbnailUrl(id);
  } catch {
    image.dispatchEvent(new Event("error"));
  }
}

/** An <img> of a stored image; it loads when it comes near the window, or at once. */
export function thumbnail(id, alt, {lazy = true, ...properties} = {}) {
  const image = h("img", {alt, decoding: "async", draggable: false, "data-id": id, ...properties});
  image.addEventListener("error", () => image.classList.add("missing"));
  if (lazy) wanted.observe(image);
  else load(image, id);
  return image;
}

/** Have a thumbnail ready for when it is shown. */
export async function preload(id) {
  new Image().src = await thumbnailUrl(id);
}

/** The stored preview as a file, to search by a part of it. */
export async function thumbnailFile(id) {
  return (await request(thumbnailPath(id))).blob();
}
